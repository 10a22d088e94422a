//! Settings that all pruners share.

use burn::config::Config;

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
}
