//! The run behind a trainee, which its handles share.

use burn::train::Interrupter;

use crate::Error;
use crate::erased::AnyModel;
use crate::run::any_chain::AnyChain;

pub(super) const FINISHED: Error = Error::Trainee {
    reason: "its run is finished; begin another chain",
};

/// The chain of a run, driven by whichever handle makes the step.
pub(super) struct Engine {
    /// Gone when the run is finished.
    pub chain: Option<AnyChain>,
    pub error: Option<Error>,
    pub interrupter: Option<Interrupter>,
    /// Whether a record of another configuration is loaded.
    pub accepts_changes: bool,
}

impl Engine {
    /// Runs a part of a step on the chain as that of `model`, unless an error ended the run.
    pub fn drive<T>(
        &mut self,
        model: &AnyModel,
        part: impl FnOnce(&mut AnyChain) -> Result<T, Error>,
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
