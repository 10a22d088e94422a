//! Masks of channels that not all layers of a group mask.

use super::*;

fn weight(conv: &Conv2d) -> Vec<f32> {
    conv.weight.val().into_data().try_to_vec().unwrap()
}

#[test]
fn masks_of_partial_channels_are_kept_or_lifted() {
    // `point` alone masks channel 3 as well, `norm` alone channel 4.
    let net = Net::new(&Device::flex());
    let mut masks = masks();
    masks.insert(id("point.weight"), rows(&[8, 8, 1, 1], &[1, 3, 6]));
    masks.insert(id("point.bias"), rows(&[8], &[1, 3, 6]));
    masks.insert(id("norm.gamma"), rows(&[8], &[1, 4, 6]));
    masks.insert(id("norm.beta"), rows(&[8], &[1, 4, 6]));
    let kept = keep(&net, &masks);
    let lifted = lift(&net, &masks);
    assert_eq!(kept.plan, lifted.plan);
    assert_eq!(
        (kept.report.lifted_channels, lifted.report.lifted_channels),
        (0, 2)
    );
    // Channel 3 is row 2 of six.
    let zeros = |conv: &Conv2d| weight(conv)[12..18].iter().all(|&value| value == 0.0);
    assert!(zeros(&kept.model.point) && !zeros(&lifted.model.point));
    let gamma = |net: &Net| {
        net.norm
            .gamma
            .val()
            .into_data()
            .try_to_vec::<f32>()
            .unwrap()
    };
    assert_eq!(gamma(&kept.model), [1.0, 1.0, 1.0, 0.0, 1.0, 1.0]);
    assert_eq!(gamma(&lifted.model), [1.0; 6]);
    assert!(lifted.state.masks.is_empty());
    // The same as if these channels had not been masked at all.
    let other = keep(&net, &self::masks());
    assert_same(&lifted.model, &other.model);
}

#[test]
fn masks_of_outputs_are_lifted_too() {
    let net = Net::new(&Device::flex());
    let mut masks = masks_of_outputs();
    let channels = rows(&[8], &[1, 3, 6]).values().to_vec();
    let mask = Mask::new(channels, [1, 8, 1, 1]).unwrap();
    masks.insert(id("depthwise._output_0"), mask);
    let kept = keep(&net, &masks);
    let left = kept.state.masks[&id("depthwise._output_0")].values();
    assert_eq!(left, [1.0, 1.0, 0.0, 1.0, 1.0, 1.0]);
    let lifted = lift(&net, &masks);
    assert_eq!(lifted.report.lifted_channels, 1);
    assert!(lifted.state.masks.is_empty());
    assert_eq!(kept.plan, lifted.plan);
}

#[test]
fn single_values_and_channels_that_all_layers_mask_are_not_lifted() {
    let net = Net::new(&Device::flex());
    let mut masks = masks();
    // Row 3 of `point` is masked by chance, with its bias.
    let mut values = masks[&id("point.weight")].values().to_vec();
    values[3 * 8..4 * 8].fill(0.0);
    values[2] = 0.0;
    let chance = Mask::new(values, [8, 8, 1, 1]).unwrap();
    masks.insert(id("point.weight"), chance);
    masks.insert(id("point.bias"), rows(&[8], &[1, 3, 6]));
    // The other group of `grouped` loses one channel only, so that channel 0 or 2 stays.
    masks.insert(id("grouped.weight"), rows(&[6, 4, 3, 3], &[0, 2, 5]));
    masks.insert(id("grouped.bias"), rows(&[6], &[0, 2, 5]));
    let lifted = lift(&net, &masks);
    let kept = keep(&net, &masks);
    assert_eq!(lifted.report.lifted_channels, 0);
    assert_eq!(weight(&lifted.model.point), weight(&kept.model.point));
    assert_eq!(weight(&lifted.model.grouped), weight(&kept.model.grouped));
    assert!(
        weight(&kept.model.grouped)[..27]
            .iter()
            .all(|&value| value == 0.0)
    );
}

/// A sum of two layers that read the same hidden channels.
#[derive(Module, Debug)]
struct Sum {
    inner: Linear,
    second: Linear,
    third: Linear,
    head: Linear,
}

#[test]
fn what_lifted_weights_read_stays() {
    let device = Device::flex();
    let linear = |inputs, outputs| LinearConfig::new(inputs, outputs).init(&device);
    let net = Sum {
        inner: linear(2, 2),
        second: linear(2, 3),
        third: linear(2, 3),
        head: linear(3, 1),
    };
    // All of `second` is masked, and what `third` reads of hidden channel 0.
    let masks = Masks::from([
        (id("second.weight"), rows(&[2, 3], &[0, 1])),
        (id("second.bias"), rows(&[3], &[0, 1, 2])),
        (id("third.weight"), rows(&[2, 3], &[0])),
    ]);
    let speed_up = |partial_channels| {
        let (net, calibration) = (net.clone(), Calibration::new());
        let compressed = Compressed::from_parts(net, &masks, &calibration, History::default());
        let x = Tensor::<2>::from_floats([[0.5, -1.0], [2.0, 0.3]], &device);
        let dummy = DummyInput::new(x, |net: &Sum, x| {
            let hidden = relu(net.inner.forward(x));
            let sum = net.second.forward(hidden.clone()) + net.third.forward(hidden);
            net.head.forward(relu(sum))
        });
        ModelSpeedup::new(compressed.unwrap(), dummy)
            .with_partial_channels(partial_channels)
            .speedup_model()
            .unwrap()
    };
    let kept = speed_up(PartialChannels::Keep);
    assert_eq!(kept.model.inner.weight.dims(), [2, 1]);
    let lifted = speed_up(PartialChannels::Lift);
    assert_eq!(lifted.report.lifted_channels, 3);
    assert_eq!(lifted.model.inner.weight.dims(), [2, 2]);
}
