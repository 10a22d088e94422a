//! A training by a `Learner` that goes on from its own records.

use burn::module::Module;
use burn::optim::lr_scheduler::cosine::CosineAnnealingLrSchedulerConfig;
use burn::optim::lr_scheduler::module_lr_scheduler::ModuleLrScheduler;
use burn::optim::{AdamConfig, ModuleOptimizer, OptimizerRecord};
use burn::store::ModuleRecord;
use burn::train::TrainStep;
use burn_compress::prelude::*;
use burn_compress::{Error, Trainee};
use burn_compress_tests::chains::{Chain, outcome};
use burn_compress_tests::nets::{Batch, Net, Outcome, batches};

use crate::fixtures::{Place, STEPS, fused};

/// What a `Learner` holds, and what it does.
struct Training {
    trainee: Trainee<Net, Batch>,
    optimizer: ModuleOptimizer,
    schedule: ModuleLrScheduler,
}

impl Training {
    /// With the optimizer and the schedule of the evaluator.
    fn of(chain: Chain) -> Self {
        let schedule = CosineAnnealingLrSchedulerConfig::new(1e-2, STEPS);
        Self {
            trainee: chain.into_trainee(STEPS).unwrap(),
            optimizer: AdamConfig::new().init(),
            schedule: schedule.init().unwrap(),
        }
    }

    /// Makes the steps after `from` up to `to`.
    fn train(mut self, from: usize, to: usize) -> Self {
        let per_epoch = batches(5, 0).len();
        for step in from..to {
            let batch = batches(5, step / per_epoch).swap_remove(step % per_epoch);
            let output = TrainStep::step(&self.trainee, batch);
            let rate = self.schedule.step();
            self.trainee = self
                .trainee
                .optimize(&mut self.optimizer, rate, output.grads);
        }
        self
    }

    /// Another training that begins with the records of this one, as files hold them.
    fn handed_on(&self, chain: Chain) -> Self {
        let model = self.trainee.clone().into_record().into_bytes().unwrap();
        let optimizer = self.optimizer.to_record().into_bytes().unwrap();
        let other = Self::of(chain);
        let optimizer = OptimizerRecord::from_bytes(optimizer).unwrap();
        Self {
            trainee: other
                .trainee
                .load_record(ModuleRecord::from_bytes(model).unwrap()),
            optimizer: other.optimizer.load_record(optimizer),
            schedule: other.schedule.load_record(self.schedule.to_record()),
        }
    }
}

#[test]
fn it_ends_bit_for_bit_like_a_chain_that_was_not_stopped() {
    let _turn = Place::new();
    let whole = outcome(fused(1), &Budget::steps(STEPS));
    for stop in [1, 9, 20] {
        let first = Training::of(fused(1)).train(0, stop);
        let second = first.handed_on(fused(7)).train(stop, STEPS);
        let found = Outcome::of(&second.trainee.valid().finish().unwrap());
        assert_eq!(found.difference(&whole), [""; 0], "stopped at {stop}");
    }
}

#[test]
fn a_run_that_is_not_at_its_end_is_finished_only_on_request() {
    let _turn = Place::new();
    let training = Training::of(fused(1)).train(0, 1);
    let error = training.trainee.finish().unwrap_err();
    assert!(
        matches!(
            error,
            Error::Unfinished {
                done: 1,
                total: STEPS
            }
        ),
        "{error}"
    );
    let training = Training::of(fused(1)).train(0, 9);
    let compressed = training.trainee.valid().finish_early().unwrap();
    assert_eq!(compressed.history().steps.len(), 9);
}
