//! A trainee as a module: its paths are those of its model, its record holds the run as well.

use std::fmt;

use burn::module::{Module, ModuleMapper, ModuleVisitor};
use burn::store::{ModuleRecord, RecordError};

use super::{StepOutput, Trainee};
use crate::erased::AnyModel;
use crate::module::moves_with;
use crate::run::any_chain::learnables;
use crate::simulate::attach;

impl<M: Clone, I, O> Clone for Trainee<M, I, O> {
    fn clone(&self) -> Self {
        Self {
            model: self.model.clone(),
            output: self.output.clone(),
            evaluator: self.evaluator.clone(),
            sizes: self.sizes.clone(),
            training: self.training,
            compression: self.compression,
            learned: self.learned.clone(),
            engine: self.engine.clone(),
        }
    }
}

impl<M: fmt::Debug, I, O> fmt::Debug for Trainee<M, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainee")
            .field("model", &self.model)
            .field("training", &self.training)
            .finish_non_exhaustive()
    }
}

impl<M: fmt::Display, I, O> fmt::Display for Trainee<M, I, O> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

/// The paths are those of the model. While it trains, its record holds the state of the run beside the
/// parameters; that of a snapshot holds the parameters alone.
impl<M: Module + 'static, I: Send + 'static, O: StepOutput> Module for Trainee<M, I, O> {
    moves_with!(model);

    /// A snapshot joins the run again: its masks, scales and learnables are the latest of
    /// the run.
    fn train(self) -> Self {
        let model = self.model.train();
        let model = match &self.engine.lock().chain {
            Some(chain) => attach::rejoin(AnyModel::new(model), &chain.spaces).into_typed(),
            None => model,
        };
        Self {
            model,
            training: true,
            learned: Vec::new(),
            ..self
        }
    }

    fn valid(&self) -> Self {
        let learned = match &self.engine.lock().chain {
            Some(chain) if self.training => {
                let learnables = learnables(&chain.algorithms).into_iter();
                learnables
                    .map(|learnable| (learnable.clone(), learnable.held()))
                    .collect()
            }
            _ => self.learned.clone(),
        };
        let model = self.model.valid();
        let spaces = attach::spaces(&AnyModel::new(model.clone()));
        Self {
            model,
            training: false,
            compression: self.sizes.compression(&spaces),
            learned,
            ..self.clone()
        }
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        self.model.visit(visitor);
    }

    fn map<T: ModuleMapper>(self, mapper: &mut T) -> Self {
        Self {
            model: self.model.map(mapper),
            ..self
        }
    }
    fn into_record(self) -> ModuleRecord {
        match self.recorded() {
            // A plain model may take the parameters of the record alone.
            Some(recorded) => recorded.into_record().allow_unused(true),
            None => self.model.into_record(),
        }
    }

    fn try_load_record(self, record: ModuleRecord) -> Result<Self, RecordError> {
        let loaded = self.restore(record);
        loaded.map_err(|error| RecordError::Validation(error.to_string()))
    }

    /// A record that does not fit ends the run: [`finish`](Self::finish) returns why.
    fn load_record(self, record: ModuleRecord) -> Self {
        match self.clone().restore(record) {
            Ok(loaded) => loaded,
            Err(error) => {
                self.fail(error);
                self
            }
        }
    }
}
