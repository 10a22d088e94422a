//! An algorithm of a user over the targets of the framework.

use burn::module::Module;
use burn_compress::prelude::*;
use burn_compress::quantization::{ApplyMethod, ObserverKind, QuantDefaults, QuantTargets};
use burn_compress::{Algorithm, AlgorithmState, BoxError, Configuration, FlatTensor, Mode, Run};
use burn_compress_tests::chains::{Built, Chain};
use indexmap::IndexMap;

use crate::{STEPS, config, plain};

/// Follows ranges for some steps, then keeps them.
struct Frozen {
    targets: QuantTargets,
    after: usize,
}

impl<M: Module, I> Algorithm<M, I> for Frozen {
    fn name(&self) -> &'static str {
        "Frozen"
    }

    fn mode(&self) -> Mode {
        Mode::Quantization
    }

    fn observe(&mut self, run: Run<'_, M>) -> Result<(), BoxError> {
        if run.step >= self.after {
            for target in self.targets.iter() {
                target.space().set_observer(None);
            }
        }
        self.targets.enable();
        Ok(self.targets.observe_parameters(run.model)?)
    }

    fn rewrite(&mut self, run: Run<'_, M>) -> Result<IndexMap<TargetId, FlatTensor>, BoxError> {
        Ok(self.targets.rewrite(run.model)?)
    }

    fn state(&self) -> Result<AlgorithmState, BoxError> {
        Ok(self.targets.state())
    }

    fn load_state(&mut self, state: &AlgorithmState) -> Result<(), BoxError> {
        self.targets.load_state(state)
    }

    fn configuration(&self) -> Result<Configuration, BoxError> {
        let own = Configuration::default().with("after", &self.after);
        Ok(self.targets.configuration(own))
    }
}

pub fn frozen(mut chain: Chain) -> Built {
    let defaults = QuantDefaults::new("Frozen")
        .with_apply_method(ApplyMethod::QatClampRound)
        .with_observer(ObserverKind::MovingAverage)
        .with_weight_observer(ObserverKind::Mse);
    let targets = QuantTargets::claim(&mut chain.chain(), &config(), &defaults)?;
    targets.follow();
    chain.chain().push(Frozen { targets, after: 3 });
    Ok(chain)
}

#[test]
fn ranges_stay_as_they_were() {
    let budget = Budget::steps(STEPS);
    let mut chain = frozen(plain(1)).unwrap();
    let mut ranges = Vec::new();
    for step in [2, 3, 7] {
        chain.advance(&budget, Some(step)).unwrap();
        let calibration = chain.calibration().unwrap().into_values();
        ranges.push(calibration.map(|entry| entry.maximum).collect::<Vec<_>>());
    }
    assert_ne!(ranges[0], ranges[1]);
    assert_eq!(ranges[1], ranges[2]);
}
