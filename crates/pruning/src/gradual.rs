//! Pruners that raise the goals of the newest pruner of a chain.

use burn::config::Config;
use burn::module::Module;
use burn_compress_core::{Compressor, Error};

use crate::Schedule;
use crate::fused::FusedPruner;

/// Settings of an [`AgpPruner`].
#[derive(Config, Debug)]
pub struct AgpConfig {
    /// Optimizer steps between two updates.
    pub interval: usize,
    /// Number of updates.
    pub times: usize,
}

/// Automated gradual pruning over the newest pruner of a chain: fast at first, slow near the end.
#[derive(Debug, Clone, Copy)]
pub struct AgpPruner;

impl AgpPruner {
    /// Attaches the schedule to the newest pruner of `compressor`.
    ///
    /// # Errors
    ///
    /// The newest algorithm is no pruner or has a schedule, the interval is shorter than the steps
    /// of its score, a number is 0, or the evaluator cannot train.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, I: 'static>(
        mut compressor: Compressor<M, I>,
        config: AgpConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let schedule = Schedule::agp(config.interval, config.times)?;
        FusedPruner::schedule(&mut compressor.chain().erased(), "AgpPruner", schedule)?;
        Ok(compressor)
    }
}

/// Settings of a [`LinearPruner`].
#[derive(Config, Debug)]
pub struct LinearConfig {
    /// Optimizer steps between two updates.
    pub interval: usize,
    /// Number of updates.
    pub times: usize,
}

/// Raises the goals of the newest pruner of a chain in equal parts.
#[derive(Debug, Clone, Copy)]
pub struct LinearPruner;

impl LinearPruner {
    /// Attaches the schedule to the newest pruner of `compressor`.
    ///
    /// # Errors
    ///
    /// The newest algorithm is no pruner or has a schedule, the interval is shorter than the steps
    /// of its score, a number is 0, or the evaluator cannot train.
    #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
    pub fn new<M: Module + 'static, I: 'static>(
        mut compressor: Compressor<M, I>,
        config: LinearConfig,
    ) -> Result<Compressor<M, I>, Error> {
        let schedule = Schedule::linear(config.interval, config.times)?;
        FusedPruner::schedule(&mut compressor.chain().erased(), "LinearPruner", schedule)?;
        Ok(compressor)
    }
}
