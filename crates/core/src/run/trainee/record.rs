//! The record of a trainee: that of its model, and the state of its run as two more tensors.
//!
//! A record holds tensors of known shapes only. So one tensor holds the length of the state, and
//! where it is loaded, the shape of the other follows from it.

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param, ParamId};
use burn::tensor::{Bytes, DType, Device, Int, Tensor, TensorData};

use crate::Error;
use crate::erased::AnyModel;
use crate::module::moves_with;

/// No name of a field, so that no path of a model collides with it.
const STATE: &str = "burn-compress run";
const WORDS: &str = "words";
const LENGTH: &str = "length";

/// A model and the bytes of its run.
#[derive(Clone, Debug)]
pub(super) struct Recorded {
    model: AnyModel,
    device: Device,
    /// The length of the state in words and in bytes of the last word, `[2]`.
    length: Vec<i32>,
    words: Vec<i32>,
    /// Error of the device that holds the loaded values.
    failure: Option<String>,
}

impl Recorded {
    /// A model that waits for a record.
    pub fn empty(model: AnyModel) -> Self {
        let device = model.devices().first().cloned().unwrap_or_default();
        Self {
            model,
            device: device.without_autodiff(),
            length: vec![0, 0],
            words: Vec::new(),
            failure: None,
        }
    }

    /// A model with its state; none of a state that is too large for a tensor.
    pub fn new(model: AnyModel, state: &[u8]) -> Option<Self> {
        let (whole, rest) = state.as_chunks::<4>();
        let mut words: Vec<i32> = whole.iter().map(|&word| i32::from_le_bytes(word)).collect();
        let mut last = [0; 4];
        last[..rest.len()].copy_from_slice(rest);
        words.push(i32::from_le_bytes(last));
        let length = vec![i32::try_from(words.len()).ok()?, rest.len() as i32];
        Some(Self {
            length,
            words,
            ..Self::empty(model)
        })
    }

    /// The model and the state; none if the record had none.
    ///
    /// # Errors
    ///
    /// A device failed to hand over what was loaded.
    pub fn into_parts(self) -> Result<(AnyModel, Option<Bytes>), Error> {
        if let Some(reason) = self.failure {
            return Err(Error::Device(reason));
        }
        let Some((last, whole)) = self.words.split_last() else {
            return Ok((self.model, None));
        };
        let mut state: Vec<u8> = whole.iter().flat_map(|word| word.to_le_bytes()).collect();
        let rest = usize::try_from(self.length[1]).unwrap_or(0).min(4);
        state.extend(&last.to_le_bytes()[..rest]);
        Ok((self.model, Some(Bytes::from_bytes_vec(state))))
    }

    fn param(&self, values: &[i32]) -> Param<Tensor<1, Int>> {
        let data = TensorData::new(values.to_vec(), [values.len()]);
        // Not every device has larger integers.
        let tensor = Tensor::from_data(data, (&self.device, DType::I32));
        Param::initialized(ParamId::new(), tensor)
    }

    /// Numbers after a mapper.
    fn mapped<T: ModuleMapper>(&mut self, mapper: &mut T, name: &str, values: &[i32]) -> Vec<i32> {
        mapper.enter_module(name, "");
        let data = mapper.map_int(self.param(values)).val().try_into_data();
        mapper.exit_module(name, "");
        match data {
            Ok(data) => data.iter::<i32>().collect(),
            Err(error) => {
                self.failure = Some(error.to_string());
                Vec::new()
            }
        }
    }
}

impl Module for Recorded {
    moves_with!(model);

    fn train(self) -> Self {
        Self {
            model: self.model.train(),
            ..self
        }
    }

    fn valid(&self) -> Self {
        Self {
            model: self.model.valid(),
            ..self.clone()
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        visitor.enter_module(STATE, "");
        for (name, values) in [(LENGTH, &self.length), (WORDS, &self.words)] {
            visitor.enter_module(name, "");
            visitor.visit_int(&self.param(values));
            visitor.exit_module(name, "");
        }
        visitor.exit_module(STATE, "");
        self.model.visit(visitor);
    }

    fn map<T: ModuleMapper>(mut self, mapper: &mut T) -> Self {
        mapper.enter_module(STATE, "");
        let length = self.length.clone();
        let length = self.mapped(mapper, LENGTH, &length);
        if let [words, _] = length[..]
            && let Ok(size) = usize::try_from(words)
            && size > 0
        {
            self.words = self.mapped(mapper, WORDS, &vec![0; size]);
            self.length = length;
        }
        mapper.exit_module(STATE, "");
        Self {
            model: self.model.map(mapper),
            ..self
        }
    }
}
