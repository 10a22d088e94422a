//! A trainee as a module: its paths and records are those of its model.

use std::fmt;

use burn::module::{Devices, Module, ModuleMapper, ModuleVisitor};
use burn::tensor::Device;

use super::Trainee;
use crate::attach;

impl<M: Clone, I> Clone for Trainee<M, I> {
    fn clone(&self) -> Self {
        Self {
            model: self.model.clone(),
            loss: self.loss.clone(),
            training: self.training,
            learned: self.learned.clone(),
            engine: self.engine.clone(),
        }
    }
}

impl<M: fmt::Debug, I> fmt::Debug for Trainee<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Trainee")
            .field("model", &self.model)
            .field("training", &self.training)
            .finish_non_exhaustive()
    }
}

impl<M: fmt::Display, I> fmt::Display for Trainee<M, I> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.model.fmt(f)
    }
}

/// The paths and records are those of the model.
impl<M: Module + 'static, I: Send + 'static> Module for Trainee<M, I> {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.model.collect_devices(devices)
    }

    fn fork(self, device: &Device) -> Self {
        Self {
            model: self.model.fork(device),
            ..self
        }
    }

    fn to_device(self, device: &Device) -> Self {
        Self {
            model: self.model.to_device(device),
            ..self
        }
    }

    /// A snapshot takes part in the run again: its masks, scales and learnables are the latest of
    /// the run.
    fn train(self) -> Self {
        let model = self.model.train();
        let model = match &self.engine.lock().chain {
            Some(chain) => attach::rejoin(model, &chain.spaces),
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
                let learnables = chain.learnables().into_iter();
                learnables
                    .map(|learnable| (learnable.clone(), learnable.held()))
                    .collect()
            }
            _ => self.learned.clone(),
        };
        Self {
            model: self.model.valid(),
            training: false,
            learned,
            ..self.clone()
        }
    }

    fn materialize(self) -> Self {
        Self {
            model: self.model.materialize(),
            ..self
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
}
