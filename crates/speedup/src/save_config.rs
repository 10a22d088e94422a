//! Options of saving a small model.

use burn::config::Config;

/// Options of [`save_small_with`](crate::save_small_with).
///
/// ```
/// use burn_compress_speedup::SaveConfig;
///
/// let config = SaveConfig::new().with_master_weights(true);
/// assert!(config.master_weights && !SaveConfig::new().master_weights);
/// ```
#[derive(Config, Debug)]
pub struct SaveConfig {
    /// Whether quantized parameters are stored raw, as the floats that training moves, rather than
    /// as the integers that the model computes with. The file is larger, and the loaded model can be
    /// trained on as if it had never been saved.
    #[config(default = false)]
    pub master_weights: bool,
}
