//! The run behind a trainee, which its handles share.

use burn::module::Module;
use burn::train::Interrupter;

use crate::Error;
use crate::run::compressor::Compressor;

pub(super) const FINISHED: Error = Error::Trainee {
    reason: "its run is finished; begin another chain",
};

/// The chain of a run, driven by whichever handle makes the step.
pub(super) struct Engine<M, I> {
    /// Gone when the run is finished.
    pub chain: Option<Compressor<M, I>>,
    pub error: Option<Error>,
    pub interrupter: Option<Interrupter>,
    /// Whether a record of another configuration is loaded.
    pub accepts_changes: bool,
}

impl<M: Module + 'static, I: 'static> Engine<M, I> {
    /// Runs a part of a step on the chain as that of `model`, unless an error ended the run.
    pub fn drive<T>(
        &mut self,
        model: &M,
        part: impl FnOnce(&mut Compressor<M, I>) -> Result<T, Error>,
    ) -> Option<T> {
        if self.error.is_some() {
            return None;
        }
        let outcome = match &mut self.chain {
            Some(chain) => {
                chain.model = model.clone();
                part(chain)
            }
            None => Err(FINISHED),
        };
        outcome.map_err(|error| self.fail(error)).ok()
    }

    pub fn fail(&mut self, error: Error) {
        log::error!("the compression run ends: {error}");
        if let Some(interrupter) = &self.interrupter {
            interrupter.stop(Some(&error.to_string()));
        }
        self.error.get_or_insert(error);
    }
}
