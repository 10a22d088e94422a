//! The chain and what hangs on its model.

use std::sync::{Arc, mpsc};
use std::time::Duration;

use burn::module::{Lora, Module, Param};
use burn::nn::{Linear, LinearConfig};
use burn::optim::SgdConfig;
use burn::tensor::{Device, Tensor, TensorData};

use crate::{
    Calibration, CalibrationEntry, Compressed, Compressor, Error, Evaluator, FlatTensor, Grid,
    History, Mask, Masks, Mode, QuantScheme, RoundGradient, Stage, Target, TargetId, TargetSpace,
    Transform, Wrapper, edit_layers,
};

#[derive(Module, Debug)]
struct Net {
    first: Wrapper<Linear>,
    second: Linear,
}

impl Net {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

/// The same model before anybody wrapped it.
#[derive(Module, Debug)]
struct PlainNet {
    first: Linear,
    second: Linear,
}

impl PlainNet {
    fn forward(&self, x: Tensor<2>) -> Tensor<2> {
        self.second.forward(self.first.forward(x))
    }
}

fn linear(values: [[f32; 2]; 2]) -> Linear {
    let device = Device::flex();
    let mut linear = LinearConfig::new(2, 2).with_bias(false).init(&device);
    linear.weight = Param::from_data(TensorData::from(values), &device);
    linear
}

const FIRST: [[f32; 2]; 2] = [[0.5, -1.0], [1.5, 2.0]];
const SECOND: [[f32; 2]; 2] = [[1.0, 0.25], [-0.75, 0.5]];

fn net() -> Net {
    Net {
        first: linear(FIRST).into(),
        second: linear(SECOND),
    }
}

fn plain_net(first: [[f32; 2]; 2], second: [[f32; 2]; 2]) -> PlainNet {
    PlainNet {
        first: linear(first),
        second: linear(second),
    }
}

fn chain() -> Compressor<Net, Tensor<2>> {
    Compressor::from_model(net(), Evaluator::new())
}

fn input() -> Tensor<2> {
    Tensor::from_floats([[1.0, 2.0]], &Device::flex())
}

fn forward(net: &Net) -> Vec<f32> {
    net.forward(input()).into_data().try_to_vec().unwrap()
}

fn raw(linear: &Linear) -> Vec<f32> {
    linear
        .weight
        .base()
        .detach()
        .into_data()
        .try_to_vec()
        .unwrap()
}

fn weight(layer: &str) -> TargetId {
    TargetId::new(layer, Target::param("weight"))
}

fn output(layer: &str) -> TargetId {
    TargetId::new(layer, Target::Output(0))
}

fn mask<const N: usize>(values: [f32; N], shape: [usize; 2]) -> Mask {
    Mask::new(values.to_vec(), shape).unwrap()
}

/// Removes the second output channel of `first`, in the weight and in the output.
fn masks() -> Masks {
    Masks::from([
        (weight("first"), mask([1.0, 0.0, 1.0, 0.0], [2, 2])),
        (output("first"), mask([1.0, 0.0], [1, 2])),
    ])
}

/// Steps of one for `second.weight`, between -1 and 1.
fn calibration() -> Calibration {
    let entry = CalibrationEntry {
        dtype: "int2".into(),
        scheme: QuantScheme::Symmetric,
        qmin: -1.0,
        qmax: 1.0,
        grid: Grid::new([]),
        gradient: RoundGradient::StraightThrough,
        enabled: true,
        scale: Some(vec![1.0]),
        zero_point: Some(vec![0.0]),
        minimum: None,
        maximum: None,
    };
    Calibration::from([(weight("second"), entry)])
}

#[test]
fn a_target_has_one_compressor_of_each_mode() {
    let mut chain = chain();
    let pruned = chain
        .chain()
        .claim(Mode::Pruning, &[weight("first")])
        .unwrap();
    let both = [weight("second"), weight("first")];
    let taken = chain.chain().claim(Mode::Pruning, &both).unwrap_err();
    assert!(matches!(
        &taken,
        Error::TargetTaken { target, mode: Mode::Pruning } if *target == weight("first")
    ));
    assert!(
        chain.inner.spaces.get(&weight("second")).is_none(),
        "nothing is claimed with an error"
    );
    let quantized = chain.chain().claim(Mode::Quantization, &both).unwrap();
    assert!(
        std::sync::Arc::ptr_eq(&pruned[0], &quantized[1]),
        "compressors meet in one state"
    );
}

#[test]
fn unknown_targets_are_refused_with_what_the_model_has() {
    let mut chain = chain();
    let reason = |id: TargetId, chain: &mut Compressor<Net, Tensor<2>>| match chain
        .chain()
        .claim(Mode::Pruning, &[id])
    {
        Err(Error::UnknownTarget { reason, .. }) => reason,
        other => panic!("{other:?}"),
    };
    assert!(reason(weight("frist"), &mut chain).contains("first"));
    let bias = TargetId::new("first", Target::param("bias"));
    assert!(reason(bias, &mut chain).contains("weight"));
    assert!(reason(output("second"), &mut chain).contains("Wrapper<Linear>"));
}

#[test]
fn a_chain_keeps_its_first_evaluator() {
    let full = Evaluator::<Net, Tensor<2>>::new()
        .with_data(|_| vec![input()])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Net, x: &Tensor<2>| net.forward(x.clone()).mean());
    let ignored = chain()
        .with_evaluator(full.clone())
        .with_evaluator(full.clone());
    let warnings = ignored.compress(crate::Budget::steps(1)).unwrap();
    assert_eq!(
        warnings.warnings(),
        ["the chain already has an evaluator; the one passed now is ignored"]
    );
    let without = chain().with_evaluator(full.clone());
    assert!(without.evaluator().require_training("a test").is_ok());
    assert!(
        without.inner.progress.optimizer.is_some(),
        "the optimizer is that of the evaluator"
    );

    let loss_only = Evaluator::new().with_loss(|_: &Net, x: &Tensor<2>| x.clone().mean());
    let with = Compressor::from_model(net(), loss_only).with_evaluator(full);
    let missing = with.evaluator().require_training("a test").unwrap_err();
    assert!(matches!(
        missing,
        Error::MissingEvaluator {
            builder: "with_data",
            ..
        }
    ));
    assert!(with.inner.progress.optimizer.is_none());
}

#[test]
fn masks_are_replaced_all_or_none() {
    let mut chain = chain();
    let before = mask([0.0, 1.0, 1.0, 1.0], [2, 2]);
    chain
        .update_masks(&Masks::from([(weight("first"), before.clone())]))
        .unwrap();
    let update = Masks::from([
        (weight("first"), mask([1.0, 0.0, 1.0, 0.0], [2, 2])),
        (weight("second"), mask([1.0, 1.0, 1.0, 0.0], [2, 2])),
        (output("first"), Mask::new(vec![1.0, 0.0], [2]).unwrap()),
    ]);
    // An output has no shape before the first forward pass, so the model runs once.
    chain
        .update_masks(&Masks::from([(output("first"), mask([1.0, 1.0], [1, 2]))]))
        .unwrap();
    let _ = forward(chain.model());
    let held = chain.masks();

    let error = chain.update_masks(&update).unwrap_err();
    assert!(matches!(error, Error::ShapeMismatch { target, .. } if target == output("first")));
    assert_eq!(chain.masks(), held);
    assert_eq!(chain.masks()[&weight("first")], before);
    chain
        .chain()
        .claim(Mode::Pruning, &[weight("second")])
        .expect("a failed update claims nothing");
}

#[test]
fn what_does_not_fit_attaches_nothing() {
    let mut chain = chain();
    let masks = Masks::from([
        (output("first"), mask([1.0, 0.0], [1, 2])),
        (weight("second"), mask([1.0, 0.0, 1.0], [3, 1])),
    ]);
    chain.update_masks(&masks).unwrap_err();
    let mut entry = calibration();
    entry[0].grid = Grid::new([3, 1]);
    entry[0].scale = Some(vec![1.0; 3]);
    entry[0].zero_point = Some(vec![0.0; 3]);
    let error = chain.update_calibration(&entry).unwrap_err();
    assert!(matches!(error, Error::InvalidCalibration { .. }));
    assert_eq!(chain.inner.spaces.values().count(), 0);
}

#[test]
fn masks_and_scales_act_and_come_off_exactly() {
    let mut chain = chain();
    chain.update_masks(&masks()).unwrap();
    chain.update_calibration(&calibration()).unwrap();
    // first: [1, 2] x [[0.5, 0], [1.5, 0]] = [3.5, 0].
    // second: [[1, 0.25], [-0.75, 0.5]] rounds to [[1, 0], [-1, 0]], half to even.
    assert_eq!(forward(chain.model()), [3.5, 0.0]);
    assert_eq!(chain.calibration().unwrap(), calibration());

    let plain = chain.unwrap_model();
    assert_eq!(raw(&plain.first), FIRST.concat());
    assert_eq!(raw(&plain.second), SECOND.concat());
    assert_eq!(forward(&plain), forward(&net()));
}

#[test]
fn plain_records_load_into_a_simulated_model_and_back() {
    let mut chain = chain();
    chain.update_masks(&masks()).unwrap();
    chain.update_calibration(&calibration()).unwrap();
    let other = [[2.0, 4.0], [-1.0, 3.0]];

    let simulated = chain
        .model()
        .clone()
        .load_record(plain_net(other, SECOND).into_record());
    assert_eq!(raw(&simulated.first), other.concat());
    // [1, 2] x [[2, 0], [-1, 0]] = [0, 0] would prove little, so the mask is read off the weight.
    let masked: Vec<f32> = simulated
        .first
        .weight
        .val()
        .into_data()
        .try_to_vec()
        .unwrap();
    assert_eq!(
        masked,
        [2.0, 0.0, -1.0, 0.0],
        "the simulation is still attached"
    );

    let back = plain_net(FIRST, FIRST).load_record(simulated.into_record());
    assert_eq!(raw(&back.first), other.concat());
    assert_eq!(raw(&back.second), SECOND.concat());
    let expected = plain_net(other, SECOND).forward(input());
    back.forward(input())
        .into_data()
        .assert_eq(&expected.into_data(), true);
}

#[test]
fn a_snapshot_does_not_follow_later_masks() {
    let mut chain = chain();
    chain
        .chain()
        .claim(Mode::Pruning, &[weight("first"), output("first")])
        .unwrap();
    let dense = forward(&net());
    let snapshot = chain.model().valid();
    let clone = chain.model().clone();
    chain.update_masks(&masks()).unwrap();
    assert_eq!(forward(&snapshot), dense);
    // [3.5, 0] x [[1, 0.25], [-0.75, 0.5]] = [3.5, 0.875].
    assert_eq!(forward(&clone), [3.5, 0.875], "a clone shares the states");
    assert_eq!(forward(chain.model()), [3.5, 0.875]);
}

#[test]
fn a_chain_leaves_the_model_it_was_given_alone() {
    let model = net();
    let mut first = Compressor::<Net, Tensor<2>>::from_model(model.clone(), Evaluator::new());
    first.update_masks(&masks()).unwrap();
    assert_eq!(forward(&model), forward(&net()));

    let adopted = Compressor::<Net, Tensor<2>>::from_model(first.model().clone(), Evaluator::new());
    assert_eq!(
        adopted.masks(),
        first.masks(),
        "simulations that the model carries go on"
    );
    first
        .update_masks(&Masks::from([(weight("first"), mask([1.0; 4], [2, 2]))]))
        .unwrap();
    assert_eq!(adopted.masks(), masks());
}

/// What a run left that masked the second column of `first.weight` and quantized `second.weight`.
fn earlier() -> Compressed<Net> {
    let masks = Masks::from([(weight("first"), mask([1.0, 0.0, 1.0, 0.0], [2, 2]))]);
    let parts = Compressed::from_parts(net(), &masks, &calibration(), History::default());
    let earlier = parts.unwrap();
    assert_eq!(forward(earlier.model()), [3.5, 0.0]);
    earlier
}

fn on(model: Net, masks: &Masks, calibration: &Calibration) -> Result<Compressed<Net>, Error> {
    Compressed::from_parts(model, masks, calibration, History::default())
}

#[test]
fn a_mask_replaces_the_one_that_the_model_carries() {
    let earlier = earlier();
    let given = Masks::from([(weight("first"), mask([0.0, 1.0, 0.0, 1.0], [2, 2]))]);
    let later = on(earlier.model().clone(), &given, &Calibration::new()).unwrap();
    assert_eq!(later.masks(), given);
    assert_eq!(later.calibration().unwrap(), calibration(), "it goes on");
    // first: [1, 2] x [[0, -1], [0, 2]] = [0, 3]; second: [[1, 0], [-1, 0]].
    assert_eq!(forward(later.model()), [-3.0, 0.0]);
    assert_eq!(raw(&later.unwrap_model().first), FIRST.concat());
    assert_eq!(forward(earlier.model()), [3.5, 0.0], "it is left alone");
}

#[test]
fn a_calibration_replaces_the_one_that_the_model_carries() {
    let earlier = earlier();
    let mut given = calibration();
    given[0].scale = Some(vec![0.5]);
    let later = on(earlier.model().clone(), &Masks::new(), &given).unwrap();
    assert_eq!(later.calibration().unwrap(), given);
    assert_eq!(later.masks(), earlier.masks(), "they go on");
    // second: [[1, 0.25], [-0.75, 0.5]] / 0.5 rounds to [[1, 0], [-1, 1]], 2 and -1.5 being cut.
    assert_eq!(forward(later.model()), [1.75, 0.0]);
    assert_eq!(forward(earlier.model()), [3.5, 0.0], "it is left alone");
}

#[test]
fn a_mask_of_an_output_replaces_the_one_that_the_model_carries() {
    let given = |values| Masks::from([(output("first"), mask(values, [1, 2]))]);
    let earlier = on(net(), &given([1.0, 0.0]), &Calibration::new()).unwrap();
    // The first pass tells the shape of the output, [1, 2] of a batch of one.
    assert_eq!(forward(earlier.model()), [3.5, 0.875]);
    let batch = input().repeat_dim(0, 3);
    let _ = earlier.model().forward(batch);
    let model = earlier.model().clone();
    let later = on(model, &given([0.0, 1.0]), &Calibration::new()).unwrap();
    // [0, 3] x [[1, 0.25], [-0.75, 0.5]].
    assert_eq!(forward(later.model()), [-2.25, 1.5]);
    let wide = Masks::from([(output("first"), mask([1.0, 0.0, 1.0], [1, 3]))]);
    let refused = on(later.into_model(), &wide, &Calibration::new()).unwrap_err();
    assert!(matches!(refused, Error::ShapeMismatch { target, .. } if target == output("first")));
}

#[test]
fn the_parts_of_a_model_change_nothing_on_it() {
    let earlier = earlier();
    let (masks, calibration) = (earlier.masks(), earlier.calibration().unwrap());
    let same = on(earlier.model().clone(), &masks, &calibration).unwrap();
    assert_eq!(forward(same.model()), forward(earlier.model()));
    assert_eq!(same.masks(), masks);
}

#[test]
fn a_parameter_with_an_adapter_is_refused() {
    let adapted = || net().apply_lora(Lora::new(1, 1.0));
    let mut chain = Compressor::<Net, Tensor<2>>::from_model(adapted(), Evaluator::new());
    let claimed = chain
        .chain()
        .claim(Mode::Pruning, &[weight("first")])
        .unwrap_err();
    let parts = on(adapted(), &masks(), &Calibration::new()).unwrap_err();
    for error in [claimed, parts] {
        assert!(
            matches!(&error, Error::Reparameterized { target } if *target == weight("first")),
            "{error}"
        );
    }
    assert!(chain.inner.spaces.get(&weight("first")).is_none());
    let merged = on(adapted().materialize(), &masks(), &Calibration::new());
    merged.expect("the adapters are part of the weights");
}

#[test]
fn walks_can_be_nested() {
    let other = net();
    let (model, paths) = edit_layers(net(), Vec::new(), move |paths, path, _| {
        let (_, inner) = edit_layers(other.clone(), 0, |inner, _, _| *inner += 1);
        paths.push(format!("{path} {inner}"));
    });
    assert_eq!(paths, ["first 1"]);
    assert_eq!(forward(&model), forward(&net()));
}

#[test]
fn sizes_that_no_memory_holds_are_refused() {
    let huge = [usize::MAX, 2];
    assert!(matches!(
        Mask::new(Vec::new(), huge),
        Err(Error::InvalidMask { .. })
    ));
    let mut entry = calibration().swap_remove(&weight("second")).unwrap();
    entry.grid = Grid::new(huge);
    assert!(entry.to_quantization(&Device::flex()).is_err());
    let given = Calibration::from([(weight("second"), entry)]);
    let error = on(net(), &Masks::new(), &given).unwrap_err();
    assert!(matches!(error, Error::InvalidCalibration { .. }));
    assert!(chain().update_calibration(&given).is_err());
}

/// Multiplies by the number of elements that the mask of its target removes.
#[derive(Debug)]
struct ByRemoved(Arc<TargetSpace>);

impl Transform for ByRemoved {
    fn apply(&self, value: FlatTensor, _mask: Option<Tensor<1>>) -> FlatTensor {
        let removed = self.0.mask().map_or(0, |mask| mask.removed());
        FlatTensor {
            values: value.values * removed as f32,
            ..value
        }
    }

    fn snapshot(&self) -> Arc<dyn Transform> {
        Arc::new(Self(self.0.clone()))
    }
}

#[test]
fn a_transform_can_read_its_target() {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let mut chain = chain();
        let masks = Masks::from([(weight("first"), mask([1.0, 0.0, 1.0, 0.0], [2, 2]))]);
        chain.update_masks(&masks).unwrap();
        let space = chain.inner.spaces.get(&weight("first")).unwrap();
        for stage in [Stage::Quantize, Stage::Mask, Stage::Last] {
            space.set_transform(stage, Some(Arc::new(ByRemoved(space.clone()))));
        }
        sender.send(forward(chain.model())).unwrap();
    });
    // Were the target locked, the pass would never end. The weight is 2 * 2 * 2 times the raw one,
    // the mask being replaced: [28, 24] x [[1, 0.25], [-0.75, 0.5]].
    let found = receiver.recv_timeout(Duration::from_secs(30)).unwrap();
    assert_eq!(found, [10.0, 19.0]);
}

#[test]
fn a_mask_that_is_given_acts_in_the_place_of_a_transform() {
    let mut chain = chain();
    let claimed = chain
        .chain()
        .claim(Mode::Pruning, &[weight("first")])
        .unwrap();
    let transform = Arc::new(ByRemoved(claimed[0].clone()));
    claimed[0].set_transform(Stage::Mask, Some(transform));
    assert_eq!(forward(chain.model()), [0.0, 0.0]);
    let given = Masks::from([(weight("first"), mask([1.0, 0.0, 1.0, 0.0], [2, 2]))]);
    let later = on(chain.model().clone(), &given, &Calibration::new()).unwrap();
    // [3.5, 0] x [[1, 0.25], [-0.75, 0.5]].
    assert_eq!(forward(later.model()), [3.5, 0.875]);
}

#[test]
fn an_evaluator_gives_its_first_batches_and_its_metric() {
    let batch = |value: usize| Tensor::<2>::full([1, 2], value as f32, &Device::flex());
    let evaluator = Evaluator::<Net, Tensor<2>>::new();
    let none = evaluator.first_batches(1).unwrap_err();
    assert!(matches!(none, Error::NoBatches { epoch: 0 }));
    assert!(!evaluator.has_evaluation() && evaluator.evaluate(&net()).is_none());
    let evaluator = evaluator
        .with_data(move |epoch| (0..3).map(move |at| batch(3 * epoch + at)))
        .with_evaluation(1, |net| forward(net)[0].into());
    let values = |count| {
        let batches = evaluator.first_batches(count).unwrap().into_iter();
        let first = batches.map(|batch| batch.into_data().try_to_vec::<f32>().unwrap()[0]);
        first.collect::<Vec<_>>()
    };
    assert_eq!(
        (values(1), values(2), values(9)),
        (vec![0.0], vec![0.0, 1.0], vec![0.0, 1.0, 2.0])
    );
    assert!(matches!(
        evaluator.first_batches(0),
        Err(Error::NoBatches { .. })
    ));
    assert_eq!(
        evaluator.evaluate(&net()),
        Some(f64::from(forward(&net())[0]))
    );
}
