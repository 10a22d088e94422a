//! Chains of compressors over the residual network, what a run of them leaves and what they say
//! when they refuse.

use std::error::Error as StdError;

use burn_compress::prelude::*;

pub use burn_compress_testkit::nets::teach;

use crate::nets::{Batch, Net, Outcome};

/// Compressors of the residual network.
pub type Chain = Compressor<Net, Batch>;
/// A chain, or why there is none.
pub type Built = Result<Chain, Box<dyn StdError>>;

/// Half of the channels of each convolution.
pub const HALF: &str = r#"[{"op_types": ["Conv2d"], "sparse_ratio": 0.5}]"#;

/// L1 norms of channels.
///
/// # Errors
///
/// Those of the configuration and of the pruner.
pub fn prune(chain: Chain, rules: &str, pruner: PrunerConfig) -> Built {
    let config = ConfigList::from_json(rules)?;
    Ok(L1NormPruner::from_compressor(chain, &config, pruner)?)
}

/// Taylor scores of two steps, from which the masks grow by `schedule`.
///
/// # Errors
///
/// Those of the configuration, of the pruner and of its schedule.
pub fn prune_by_schedule(chain: Chain, rules: &str, schedule: AgpConfig) -> Built {
    let config = ConfigList::from_json(rules)?;
    let chain = TaylorPruner::from_compressor(chain, &config, TaylorConfig::new(2))?;
    Ok(AgpPruner::new(chain, schedule)?)
}

/// Quantization-aware training.
///
/// # Errors
///
/// Those of the configuration and of the quantizer.
pub fn quantize(chain: Chain, rules: &str, quantizer: QatConfig) -> Built {
    let config = ConfigList::from_json(rules)?;
    Ok(QatQuantizer::from_compressor(chain, &config, quantizer)?)
}

/// Layer-wise distillation of `teacher`, beside `origin` times the loss of the task.
///
/// # Errors
///
/// Those of the configuration and of the distiller.
pub fn distill(chain: Chain, rules: &str, teacher: &Net, origin: f64) -> Built {
    let config = ConfigList::from_json(rules)?;
    let distiller = DistillConfig::new(origin);
    Ok(DynamicLayerwiseDistiller::from_compressor(
        chain, &config, teacher, teach, distiller,
    )?)
}

/// The target that is written like this.
///
/// # Panics
///
/// When no target is.
pub fn id(target: &str) -> TargetId {
    target.parse().expect("a layer and a target")
}

/// What a chain leaves that runs to the end of `budget`.
///
/// # Panics
///
/// When the run fails.
#[track_caller]
pub fn outcome(chain: Chain, budget: &Budget) -> Outcome {
    let compressed = chain.compress(budget.clone());
    Outcome::of(&compressed.expect("the chain runs"))
}

/// Every part is in what an error says.
///
/// # Panics
///
/// When one is not.
#[track_caller]
pub fn assert_says(error: &dyn ToString, parts: &[&str]) {
    let text = error.to_string();
    for part in parts {
        assert!(text.contains(part), "`{part}` is not in: {text}");
    }
}
