//! Settings that all pruners share.

use burn::config::Config;
use serde::{Deserialize, Serialize};

/// Settings that all pruners share, whatever their score is.
///
/// Both defaults can be turned off to get masks that follow the configuration to the letter; a
/// model with such masks may not be removable without changing its function.
#[derive(Config, Debug, Copy)]
pub struct PrunerConfig {
    /// Find coupled channels in the model's graph and mask them together, batch norms and biases
    /// included, and reject masks of whole channels that no cut can follow. Needs the evaluator's
    /// dummy input.
    #[config(default = true)]
    pub coupled: bool,
    /// Keep the best block of every target whatever its goal.
    #[config(default = true)]
    pub keep_at_least_one: bool,
    /// What the masked channels are going to be cut out of, and what their masks have to allow therefore;
    /// [`CutOf::Graph`] only with `coupled`.
    #[config(default = "CutOf::Model")]
    pub cut_of: CutOf,
}

/// What masked channels are cut out of.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum CutOf {
    /// The model, which stays of its Rust type: its code has to run with fewer channels.
    #[default]
    Model,
    /// The captured forward pass, which leaves as an ONNX file
    /// ([`GraphCut`](https://docs.rs/burn-compress-speedup/latest/burn_compress_speedup/struct.GraphCut.html)):
    /// numbers that the code holds (the groups of a plain depthwise convolution, a reshape to a literal
    /// number) are cut with it. `ModelSpeedup::speedup_model` refuses such a model.
    Graph,
}
