//! Forward time of a small network as a fraction of the dense one's.

use anyhow::anyhow;
use burn_compress::prelude::*;

use crate::digits::Split;
use crate::resnet::DigitsResNet;

/// Median forward time of `small` divided by that of `dense`, on the first `batch` digits of
/// `split`; below 1 the small network is faster.
///
/// # Errors
///
/// If `split` has fewer than `batch` digits, or `batch` is 0.
pub fn ratio(
    dense: &DigitsResNet,
    small: &DigitsResNet,
    split: &Split,
    batch: usize,
) -> anyhow::Result<f64> {
    if batch == 0 || batch > split.len() {
        return Err(anyhow!(
            "expected a batch of 1 to {} digits, found {batch}",
            split.len()
        ));
    }
    let images = split.head(batch, &dense.device().inner()).images;
    let dummy_input = DummyInput::new(images, |model: &DigitsResNet, images| model.forward(images));
    Ok(latency(dense, small, &dummy_input)?.ratio())
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;

    use super::*;
    use crate::digits::Digits;
    use crate::resnet::DigitsResNetConfig;

    #[test]
    fn a_much_narrower_network_is_faster() {
        let device = Device::flex();
        let test = Digits::load().unwrap().test;
        let dense = DigitsResNetConfig::new().init(&device);
        let small = DigitsResNetConfig::new()
            .with_widths([2, 4, 8])
            .init(&device);
        let ratio = ratio(&dense, &small, &test, 16).unwrap();
        assert!(ratio > 0.0 && ratio < 1.0, "{ratio}");
    }

    #[test]
    fn a_batch_that_the_data_cannot_fill_is_an_error() {
        let model = DigitsResNetConfig::new().init(&Device::flex());
        let test = Digits::load().unwrap().test;
        assert!(ratio(&model, &model, &test, 0).is_err());
        assert!(ratio(&model, &model, &test, 361).is_err());
    }
}
