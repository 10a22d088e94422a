//! A small model that loads and saves itself.

use std::path::Path;

use burn::module::Module;
use burn_compress_core::Error;

use crate::report::Storage;
use crate::save::{load_small, save_small_with};
use crate::save_config::SaveConfig;
use crate::state::SmallState;

/// A small model with its compression state: the content of a file.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use burn_compress_core::{DummyInput, Mask, Masks};
/// use burn_compress_speedup::{ModelSpeedup, Small};
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     first: Linear,
///     second: Linear,
/// }
///
/// let device = Device::flex();
/// let init = || Mlp {
///     first: LinearConfig::new(4, 3).with_bias(false).init(&device),
///     second: LinearConfig::new(3, 2).init(&device),
/// };
/// let dummy_input = DummyInput::new(Tensor::<2>::ones([1, 4], &device), |model: &Mlp, x| {
///     model.second.forward(model.first.forward(x))
/// });
/// let mask = Mask::new([1.0, 0.0, 1.0].repeat(4), [4, 3])?;
/// let masks = Masks::from([("first.weight".parse()?, mask)]);
/// let small = ModelSpeedup::from_masks(init(), dummy_input, &masks)?.speedup_model()?;
///
/// let path = std::env::temp_dir().join(format!("small-{}.bin", std::process::id()));
/// small.save(&path)?;
/// let again = Small::load(init(), &path)?; // the full-size model gives the architecture
/// assert_eq!(again.model.first.weight.dims(), [4, 2]);
/// # std::fs::remove_file(&path)?;
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
#[derive(Clone, Debug)]
pub struct Small<M> {
    /// The model, its state attached.
    pub model: M,
    /// The masks and the calibration that are still simulated.
    pub state: SmallState,
}

impl<M: Module + 'static> Small<M> {
    /// Loads a small model into the full-size model that it was cut from, as
    /// [`load_small`](crate::load_small) does.
    ///
    /// # Errors
    ///
    /// Those of [`load_small`](crate::load_small).
    pub fn load(full_size: M, path: impl AsRef<Path>) -> Result<Self, Error> {
        let (model, state) = load_small(full_size, path)?;
        Ok(Self { model, state })
    }
}

impl<M: Module + 'static> Small<M> {
    /// Saves the model in one file, quantized parameters as integers.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save(&self, path: impl AsRef<Path>) -> Result<Storage, Error> {
        self.save_with(path, &SaveConfig::new())
    }

    /// Saves the model in one file with the options of `config`.
    ///
    /// # Errors
    ///
    /// Those of [`save_small`](crate::save_small).
    pub fn save_with(&self, path: impl AsRef<Path>, config: &SaveConfig) -> Result<Storage, Error> {
        Ok(save_small_with(&self.model, &self.state, path, config)?)
    }
}
