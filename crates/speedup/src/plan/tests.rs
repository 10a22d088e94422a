//! Plans of masks: what they hold, their files, and cuts by them.

use std::fs;

use super::*;
use crate::{ModelSpeedup, SaveConfig, SpeedupError, save_small};
use burn::module::{Module, ModuleMapper, Param};
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::tensor::activation::relu;
use burn::tensor::{Device, Tensor};
use burn_compress_core::{Calibration, Compressed, DummyInput, History, Mask, Masks, Wrapper};
use tempfile::tempdir;

/// A convolution with a norm, a depthwise one, and a head over 2 x 2 places.
#[derive(Module, Debug)]
struct Net {
    stem: Conv2d,
    norm: BatchNorm,
    depthwise: Wrapper<Conv2d>,
    head: Linear,
}

impl Net {
    fn new(channels: usize) -> Self {
        let device = Device::flex();
        let conv = Conv2dConfig::new([1, channels], [1, 1]).with_bias(false);
        let depthwise = Conv2dConfig::new([channels, channels], [1, 1]).with_groups(channels);
        let net = Self {
            stem: conv.init(&device),
            norm: BatchNormConfig::new(channels).init(&device),
            depthwise: depthwise.init(&device).into(),
            head: LinearConfig::new(channels * 4, 3).init(&device),
        };
        net.map(&mut Spread)
    }

    fn forward(&self, x: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm.forward(self.stem.forward(x)));
        self.head.forward(self.depthwise.forward(x).flatten(1, 3))
    }
}

/// Gives every tensor values between 0.1 and 1.1, the same in each run: random numbers of a device
/// come from one generator, whichever test asks.
struct Spread;

fn spread<const D: usize>(shape: [usize; D]) -> Tensor<D> {
    let count: usize = shape.iter().product();
    let values: Vec<f32> = (0..count)
        .map(|i| (i * 7 % 11) as f32 / 11.0 + 0.1)
        .collect();
    Tensor::<1>::from_floats(&values[..], &Device::flex()).reshape(shape)
}

impl ModuleMapper for Spread {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| spread(tensor.dims()))
    }
}

fn dummy() -> DummyInput<Net> {
    DummyInput::new(spread([2, 1, 2, 2]), |net: &Net, x| net.forward(x))
}

/// Channels 1 and 2 of 4.
fn masks() -> Masks {
    let row = vec![1.0, 0.0, 0.0, 1.0];
    let mask = |shape: &[usize]| Mask::new(row.clone(), shape.to_vec()).unwrap();
    Masks::from([
        ("stem.weight".parse().unwrap(), mask(&[4, 1, 1, 1])),
        ("norm.gamma".parse().unwrap(), mask(&[4])),
        ("norm.beta".parse().unwrap(), mask(&[4])),
        ("depthwise.weight".parse().unwrap(), mask(&[4, 1, 1, 1])),
        ("depthwise.bias".parse().unwrap(), mask(&[4])),
    ])
}

fn plan() -> CutPlan {
    let speedup = ModelSpeedup::from_masks(Net::new(4), dummy(), &masks()).unwrap();
    speedup.plan().unwrap()
}

#[test]
fn a_plan_of_masks_is_what_the_cut_does() {
    let speedup = ModelSpeedup::from_masks(Net::new(4), dummy(), &masks()).unwrap();
    let plan = speedup.plan().unwrap();
    let small = speedup.speedup_model().unwrap();
    assert_eq!(plan.slices.as_ref(), Some(&small.plan));
    let report = &small.report;
    assert_eq!(
        (plan.params, plan.macs, plan.bytes),
        (report.params, report.macs, report.bytes)
    );
    // 4 + 4 + 4 of the first convolution and the norm, 4 + 4 of the second, 16 * 3 + 3 of the head.
    assert_eq!((plan.params.dense, plan.params.small), (71, 37));
    // Of one image with 4 places: 4 * 4 + 4 * 4 + 16 * 3.
    assert_eq!((plan.macs.dense, plan.macs.small), (80, 40));
    // Two maps of 2 x 4 x 2 x 2 floats are in memory at once, and half of that behind the cut.
    let activation = plan.activation_bytes;
    assert_eq!(
        (plan.batch, activation.dense, activation.small),
        (2, 256, 128)
    );
    assert_eq!(plan.groups[0].keep, Some(vec![0, 3]));
    assert_eq!((plan.groups[0].channels, plan.groups[0].removed), (4, 2));
    let readers: Vec<String> = plan.groups[0]
        .consumers
        .iter()
        .map(ToString::to_string)
        .collect();
    assert_eq!(readers, ["head.weight[0]"]);
    assert_eq!(plan.certainty(), Certainty::Decided);
    let reached: Vec<f64> = plan.layers.iter().map(|layer| layer.reached).collect();
    assert_eq!(reached, [0.5, 0.5, 0.5, 0.0]);
}

#[test]
fn it_is_shown_as_tables() {
    let text = plan().to_string();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines[1],
        "1      2 of 4       stem.weight[0] norm.gamma[0] norm.beta[0] depthwise.weight[0] \
         depthwise.bias[0]  head.weight[0]"
    );
    for line in [
        "stem.weight       Conv2d     4x1x1x1  2x1x1x1         50.0 %",
        "parameters            71 ->           37  (47.9 % removed)",
        "activations: most bytes in memory at once, batch of 2",
        "- head.weight[1]: 3 of 3 channels: reaches the model's output",
    ] {
        assert!(text.contains(line), "{line}\n{text}");
    }
}

#[test]
fn what_stays_masked_is_listed_with_the_reason() {
    let mut masks = masks();
    masks.shift_remove(&"norm.beta".parse::<TargetId>().unwrap());
    let plan = ModelSpeedup::from_masks(Net::new(4), dummy(), &masks)
        .unwrap()
        .plan()
        .unwrap();
    assert_eq!(plan.groups[0].removed, 0);
    let reason = plan.uncut[0].reason.as_deref();
    assert_eq!(
        reason,
        Some("`norm.beta` makes the same channels and keeps them")
    );
    assert!(plan.to_string().starts_with("no channel goes"), "{plan}");
}

#[test]
fn a_file_gives_the_same_plan_and_the_same_bytes_twice() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("cut.plan");
    let plan = plan();
    plan.save(&path).unwrap();
    let read = CutPlan::load(&path).unwrap();
    assert_eq!(read, plan);
    let json = serde_json::to_string(&plan).unwrap();
    assert_eq!(serde_json::from_str::<CutPlan>(&json).unwrap(), plan);

    let model = Net::new(4);
    let bytes = |name: &str| {
        let small = read.apply(model.valid(), &dummy()).unwrap();
        assert_eq!(small.model.depthwise.groups, 2);
        let path = dir.path().join(name);
        save_small(&small.model, &small.state, &path).unwrap();
        fs::read(path).unwrap()
    };
    assert_eq!(bytes("one"), bytes("two"));
}

#[test]
fn it_cuts_what_the_masks_cut() {
    let small = plan().apply(Net::new(4), &dummy()).unwrap();
    let masked = ModelSpeedup::from_masks(Net::new(4), dummy(), &masks()).unwrap();
    let other = masked.speedup_model().unwrap();
    assert_eq!(small.plan, other.plan);
    let device = Device::flex();
    let run = |net: &Net| dummy().run(net, &device);
    run(&small.model)[0].assert_eq(&run(&other.model)[0], true);
}

#[test]
fn damaged_files_and_other_files_are_refused() {
    let dir = tempdir().unwrap();
    let path = dir.path().join("cut.plan");
    plan().save(&path).unwrap();
    let whole = fs::read(&path).unwrap();
    let refused = |bytes: &[u8]| {
        fs::write(&path, bytes).unwrap();
        CutPlan::load(&path).unwrap_err()
    };
    // Every byte counts: the magic number, the version, the length, the checksum and the content.
    for at in (0..whole.len()).step_by(7) {
        let mut bytes = whole.clone();
        bytes[at] ^= 0x10;
        let error = refused(&bytes);
        assert!(
            matches!(error, SpeedupError::PlanFile { .. }),
            "{at}: {error}"
        );
    }
    for length in [0, 10, 28, whole.len() - 1] {
        let error = refused(&whole[..length]);
        assert!(
            matches!(error, SpeedupError::PlanFile { .. }),
            "{length}: {error}"
        );
    }
    let speedup = ModelSpeedup::from_masks(Net::new(4), dummy(), &masks()).unwrap();
    let small = speedup.speedup_model().unwrap();
    small.save_with(&path, &SaveConfig::new()).unwrap();
    let error = CutPlan::load(&path).unwrap_err().to_string();
    assert!(error.contains("this is not a plan of a cut"), "{error}");
    let error = CutPlan::load(dir.path().join("none")).unwrap_err();
    assert!(matches!(error, SpeedupError::Io { .. }), "{error}");
    // A key that this version does not know.
    let mut json = serde_json::to_value(plan()).unwrap();
    json["more"] = 1.into();
    assert!(serde_json::from_value::<CutPlan>(json).is_err());
}

#[test]
fn plans_of_other_models_are_refused() {
    let error = plan().apply(Net::new(5), &dummy()).unwrap_err();
    assert!(
        error
            .to_string()
            .contains("`stem.weight` is [5, 1, 1, 1], the plan is made for [4, 1, 1, 1]"),
        "{error}"
    );
    let mut plan = plan();
    plan.shapes.insert("tail.weight".to_string(), vec![2, 2]);
    let error = plan.apply(Net::new(4), &dummy()).unwrap_err().to_string();
    assert!(error.contains("the model has no `tail.weight`"), "{error}");
}

#[test]
fn the_small_model_is_not_cut_again() {
    let small = plan().apply(Net::new(4), &dummy()).unwrap();
    let error = plan().apply(small.model, &dummy()).unwrap_err();
    assert!(matches!(error, SpeedupError::AlreadyCut { .. }), "{error}");
    assert!(
        error.to_string().contains("`stem.weight` is [2, 1, 1, 1]"),
        "{error}"
    );
}

/// Changes a plan by hand and expects the error to name `what`.
fn contradiction(change: impl FnOnce(&mut CutPlan), what: &str) {
    let mut plan = plan();
    change(&mut plan);
    let error = plan.apply(Net::new(4), &dummy()).unwrap_err();
    assert!(
        matches!(error, SpeedupError::Contradiction { .. }),
        "{error}"
    );
    assert!(error.to_string().contains(what), "{error}");
}

#[test]
fn plans_that_were_edited_are_refused() {
    let keep = |plan: &mut CutPlan, path: &str, indices: &[usize]| {
        let slice = plan.slices.as_mut().unwrap().params.get_mut(path).unwrap();
        slice.keep.insert(0, indices.to_vec());
    };
    contradiction(
        |plan| keep(plan, "norm.gamma", &[0, 2]),
        "`stem.weight`: left as [2, 1, 1, 1] in place of left as [1, 1, 1, 1]",
    );
    contradiction(|plan| keep(plan, "stem.weight", &[3, 0]), "do not increase");
    contradiction(
        |plan| keep(plan, "stem.weight", &[0, 9]),
        "index 9 is outside of 0..4",
    );
    contradiction(
        |plan| {
            let params = &mut plan.slices.as_mut().unwrap().params;
            params.shift_remove("norm.running_var");
        },
        "norm.running_var",
    );
    contradiction(
        |plan| plan.slices.as_mut().unwrap().sizes[0].after = 4,
        "the numbers of layers",
    );
    contradiction(|plan| plan.params.small = 1, "parameters");
    contradiction(|plan| plan.bytes.dense = 1, "bytes");
    contradiction(|plan| plan.groups[0].keep = Some(vec![0, 1]), "stem.weight");
    contradiction(|plan| drop(plan.groups.pop()), "groups");
}

#[test]
fn a_plan_without_indices_cuts_nothing() {
    let mut plan = plan();
    plan.slices = None;
    plan.groups[0].certainty = Certainty::Counted;
    let error = plan.apply(Net::new(4), &dummy()).unwrap_err();
    assert!(
        matches!(error, SpeedupError::Undecided { groups: 1 }),
        "{error}"
    );
}

#[test]
fn simulated_models_are_left_to_speedup() {
    let (none, history) = (Calibration::new(), History::default());
    let compressed = Compressed::from_parts(Net::new(4), &masks(), &none, history).unwrap();
    let error = plan().apply(compressed.into_model(), &dummy()).unwrap_err();
    assert!(matches!(error, SpeedupError::NotPlain { .. }), "{error}");
    assert!(error.to_string().contains("`stem.weight`"), "{error}");
}

#[test]
fn random_inputs_are_verified_as_well() {
    let speedup = |dummy| ModelSpeedup::from_masks(Net::new(4), dummy, &masks()).unwrap();
    let small = speedup(dummy())
        .with_random_inputs(3, 5)
        .speedup_model()
        .unwrap();
    assert!(small.report.max_relative_error <= crate::verify::TOLERANCE);
    let made =
        DummyInput::from_fn(|net: &Net, device| net.forward(Tensor::ones([1, 1, 2, 2], device)));
    let error = speedup(made)
        .with_random_inputs(1, 5)
        .speedup_model()
        .unwrap_err();
    let cause = error.downcast_ref();
    assert!(
        matches!(cause, Some(SpeedupError::NoRandomInput)),
        "{error}"
    );
}
