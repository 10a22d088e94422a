//! The checksum of a network.

use burn::module::{Module, ModuleVisitor, Param};
use burn::tensor::{Bool, Int, Tensor};
use burn_compress_core::file::Checksum;
use burn_compress_core::{Error, FlatTensor, reads};

/// A number that identifies a teacher: the checksum of the paths, shapes and values of all tensors
/// that the network holds, running statistics included. What is no tensor, the kind of an activation
/// function for example, does not count.
pub(crate) fn fingerprint<T: Module>(network: &T) -> Result<u64, Error> {
    let mut visitor = Fingerprint {
        path: Vec::new(),
        checksum: Checksum::default(),
        failure: None,
    };
    network.visit(&mut visitor);
    match visitor.failure {
        Some(error) => Err(error),
        None => Ok(visitor.checksum.value()),
    }
}

struct Fingerprint {
    path: Vec<String>,
    checksum: Checksum,
    failure: Option<Error>,
}

impl ModuleVisitor for Fingerprint {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_string());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let value = FlatTensor::new(param.val());
        match value.to_vec() {
            Ok(values) => self.add(&value.shape, values.into_iter().map(f32::to_le_bytes)),
            Err(error) => self.failure = Some(error),
        }
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        match reads::data(param.val()) {
            Ok(data) => self.add(
                &data.shape().to_vec(),
                data.iter::<i64>().map(i64::to_le_bytes),
            ),
            Err(error) => self.failure = Some(error),
        }
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        match reads::data(param.val()) {
            Ok(data) => self.add(
                &data.shape().to_vec(),
                data.iter::<bool>().map(|value| [value.into()]),
            ),
            Err(error) => self.failure = Some(error),
        }
    }
}

impl Fingerprint {
    fn add<const N: usize>(&mut self, shape: &[usize], values: impl Iterator<Item = [u8; N]>) {
        self.checksum.add(self.path.join(".").as_bytes());
        for &size in shape {
            self.checksum.add(&(size as u64).to_le_bytes());
        }
        values.for_each(|value| self.checksum.add(&value));
    }
}

#[cfg(test)]
mod tests {
    use burn::module::ParamId;
    use burn::tensor::Device;

    use super::*;

    #[derive(Module, Debug)]
    struct Net {
        weight: Param<Tensor<1>>,
        table: Param<Tensor<1, Int>>,
    }

    #[test]
    fn a_fingerprint_follows_the_weights() {
        let device = Device::flex();
        let of = |weight: [f32; 2], table: [i32; 2]| {
            let weight = Param::from_tensor(Tensor::from_floats(weight, &device));
            let table = Param::initialized(ParamId::new(), Tensor::from_ints(table, &device));
            fingerprint(&Net { weight, table }).unwrap()
        };
        assert_eq!(of([1.0, 2.0], [3, 4]), of([1.0, 2.0], [3, 4]));
        assert_ne!(of([1.0, 2.0], [3, 4]), of([2.0, 1.0], [3, 4]));
        assert_ne!(of([0.0, 2.0], [3, 4]), of([-0.0, 2.0], [3, 4]));
        assert_ne!(of([1.0, 2.0], [3, 4]), of([1.0, 2.0], [4, 3]));
    }
}
