//! What is masked and calibrated in a chain.

use burn::module::Module;

use super::Compressor;
use crate::Error;
use crate::simulate::attach;
use crate::simulate::masks::Masks;
use crate::simulate::quantization::Calibration;

impl<M: Module + 'static, I: 'static> Compressor<M, I> {
    /// The masks of all pruners of the chain.
    pub fn masks(&self) -> Masks {
        attach::masks(&self.inner.spaces)
    }

    /// Replaces masks, also of targets that no pruner has claimed.
    ///
    /// The shape of an input or output is that of the last forward pass, or what the dummy input of
    /// the evaluator gives. Where neither is there, the mask is checked in the first training step; a
    /// forward pass outside of training panics then if the mask does not fit.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`Chain::watch`](crate::Chain::watch), or a mask of another shape;
    /// nothing is changed then.
    pub fn update_masks(&mut self, masks: &Masks) -> Result<(), Error> {
        self.inner.update_masks(masks)
    }

    /// The scales, zero points and ranges of all quantizers of the chain.
    ///
    /// # Errors
    ///
    /// A device failed to hand over its values.
    pub fn calibration(&self) -> Result<Calibration, Error> {
        attach::calibration(&self.inner.spaces)
    }

    /// Replaces scales, zero points and ranges, also of targets that no quantizer has claimed.
    ///
    /// # Errors
    ///
    /// A target that cannot be attached, see [`Chain::watch`](crate::Chain::watch), or values that cannot be used;
    /// nothing is changed then.
    pub fn update_calibration(&mut self, calibration: &Calibration) -> Result<(), Error> {
        self.inner.update_calibration(calibration)
    }
}
