//! Norms over channels that are cut: the residual stream of a transformer and of a ConvNeXt block is
//! an ordinary group, and what masked channels leave is what the small model computes.

use std::path::Path;

use burn::module::Module;
use burn::nn::conv::{Conv2d, Conv2dConfig};
use burn::nn::{
    BatchNorm, BatchNormConfig, Embedding, EmbeddingConfig, GroupNorm, GroupNormConfig,
    InstanceNorm, InstanceNormConfig, LayerNorm, LayerNormConfig, Linear, LinearConfig, RmsNorm,
    RmsNormConfig,
};
use burn::optim::SgdConfig;
use burn::tensor::activation::{gelu, relu, softmax};
use burn::tensor::{Device, Distribution, Int, Tensor};
use burn_compress::prelude::*;
use burn_compress::speedup::load_small;
use burn_compress_tests::chains::{assert_says, id};
use tempfile::TempDir;

type Chain<M> = Compressor<M, Tensor<2, Int>>;

/// Layers that normalize the last dimension.
trait Normalize: Module + burn::module::ModuleDisplay + 'static {
    fn of(width: usize, device: &Device) -> Self;

    fn normalize(&self, x: Tensor<3>) -> Tensor<3>;
}

macro_rules! normalize {
    ($($layer:ty: $config:ty),+) => {$(
        impl Normalize for $layer {
            fn of(width: usize, device: &Device) -> Self {
                <$config>::new(width).init(device).into()
            }

            fn normalize(&self, x: Tensor<3>) -> Tensor<3> {
                self.forward(x)
            }
        }
    )+};
}

normalize! {
    Wrapper<LayerNorm>: LayerNormConfig, LayerNorm: LayerNormConfig,
    Wrapper<RmsNorm>: RmsNormConfig, RmsNorm: RmsNormConfig
}

/// A block of a transformer with one head and norms in front, `[batch, tokens] -> [batch, classes]`.
#[derive(Module, Debug)]
struct Transformer<N: Normalize> {
    embedding: Embedding,
    norm1: N,
    query: Linear,
    key: Linear,
    value: Linear,
    output: Linear,
    norm2: N,
    up: Linear,
    down: Linear,
    norm3: N,
    head: Linear,
}

const WIDTH: usize = 8;

impl<N: Normalize> Transformer<N> {
    fn new(device: &Device) -> Self {
        device.seed(7);
        let linear = |i, o| LinearConfig::new(i, o).init(device);
        Self {
            embedding: EmbeddingConfig::new(11, WIDTH).init(device),
            norm1: N::of(WIDTH, device),
            query: linear(WIDTH, 6),
            key: linear(WIDTH, 6),
            value: linear(WIDTH, 6),
            output: linear(6, WIDTH),
            norm2: N::of(WIDTH, device),
            up: linear(WIDTH, 12),
            down: linear(12, WIDTH),
            norm3: N::of(WIDTH, device),
            head: linear(WIDTH, 3),
        }
    }

    fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embedding.forward(tokens);
        let y = self.norm1.normalize(x.clone());
        let scores = self
            .query
            .forward(y.clone())
            .matmul(self.key.forward(y.clone()).transpose());
        let mixed = softmax(scores / 3.0, 2).matmul(self.value.forward(y));
        let x = x + self.output.forward(mixed);
        let y = self
            .down
            .forward(gelu(self.up.forward(self.norm2.normalize(x.clone()))));
        let x = self.norm3.normalize(x + y).mean_dim(1);
        self.head.forward(x.squeeze_dim(1))
    }
}

fn tokens(device: &Device) -> Tensor<2, Int> {
    Tensor::from_data([[1, 5, 3, 2, 0], [4, 10, 9, 7, 1]], device)
}

/// What the residual stream is made of and what ends in it.
const STREAM: &str = r#"[{
    "op_names": ["embedding", "output", "down"], "target_names": ["weight"], "sparse_ratio": 0.5
}]"#;

const EVERYTHING: &str = r#"[{
    "op_names": ["embedding", "output", "down"], "target_names": ["weight"], "sparse_ratio": 0.5
}, { "op_names": ["up"], "target_names": ["weight"], "sparse_ratio": 0.5 }]"#;

fn evaluator<N: Normalize>() -> Evaluator<Transformer<N>, Tensor<2, Int>> {
    let dummy = DummyInput::new(tokens(&Device::flex()), |net: &Transformer<N>, x| {
        net.forward(x)
    });
    Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(|_| vec![tokens(&Device::flex()); 3])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.05)
        .with_loss(|net: &Transformer<N>, x: &Tensor<2, Int>| {
            let device = net.devices()[0].clone();
            net.forward(x.clone().to_device(&device)).square().mean()
        })
}

fn taylor<N: Normalize>(rules: &str) -> Result<Chain<Transformer<N>>, Error> {
    let config = ConfigList::from_json(rules).unwrap();
    let model = Transformer::<N>::new(&Device::flex());
    TaylorPruner::new(model, &config, evaluator(), TaylorConfig::new(2))
}

/// The largest difference of two outputs, relative to the largest value.
fn difference<const D: usize>(a: Tensor<D>, b: Tensor<D>) -> f32 {
    let largest = a.clone().abs().max().into_scalar::<f32>();
    (a - b).abs().max().into_scalar::<f32>() / largest
}

/// The small model is saved and loaded; its outputs are the same bit for bit.
fn assert_reloads<M: Module + 'static, const D: usize>(
    small: &Speedup<M>,
    full: M,
    directory: &Path,
    run: impl Fn(&M) -> Tensor<D>,
) {
    let path = directory.join("small.bin");
    small.save(&path).unwrap();
    let (again, _) = load_small(full, &path).unwrap();
    run(&again)
        .into_data()
        .assert_eq(&run(&small.model).into_data(), true);
}

fn a_transformer_is_cut<N: Normalize>() {
    let device = Device::flex();
    let chain = taylor::<N>(EVERYTHING).unwrap();
    let compressed = chain.compress(Budget::steps(6)).unwrap();
    let other = Tensor::<2, Int>::from_data([[2, 2, 8, 6], [0, 3, 9, 5], [1, 4, 4, 10]], &device);
    let simulated = compressed.model().forward(other.clone());
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let net = &small.model;
    assert_eq!(net.embedding.weight.dims(), [11, WIDTH / 2]);
    assert_eq!(net.output.weight.dims(), [6, WIDTH / 2]);
    assert_eq!(net.up.weight.dims(), [WIDTH / 2, 6]);
    assert_eq!(net.head.weight.dims(), [WIDTH / 2, 3]);
    let error = difference(simulated, net.forward(other.clone()));
    assert!(error < 1e-6, "{error}");
    println!("largest relative error {error:e}");
    let directory = TempDir::new().unwrap();
    assert_reloads(
        &small,
        Transformer::<N>::new(&device),
        directory.path(),
        |net| net.forward(other.clone()),
    );
}

#[test]
fn the_residual_stream_over_layer_norms() {
    a_transformer_is_cut::<Wrapper<LayerNorm>>();
}

#[test]
fn the_residual_stream_over_rms_norms() {
    a_transformer_is_cut::<Wrapper<RmsNorm>>();
}

/// Weights, the parameters of the norms and their outputs are quantized as well: the cut model rounds to
/// the same numbers.
#[test]
fn masked_norms_are_quantized_and_cut() {
    type Net = Transformer<Wrapper<LayerNorm>>;
    let device = Device::flex();
    let rules = r#"[
        {"op_types": ["Linear"], "target_names": ["weight"], "quant_dtype": "int8"},
        {"op_types": ["LayerNorm"], "target_names": ["gamma", "_output_0"], "quant_dtype": "int8"}
    ]"#;
    let config = ConfigList::from_json(rules).unwrap();
    let chain = taylor::<Wrapper<LayerNorm>>(STREAM).unwrap();
    let chain = QatQuantizer::from_compressor(chain, &config, QatConfig::new()).unwrap();
    let compressed = chain.compress(Budget::steps(6)).unwrap();
    let simulated = compressed.model().forward(tokens(&device));
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    assert_eq!(small.model.norm2.gamma.dims(), [WIDTH / 2]);
    assert!(small.state.masks.is_empty(), "{:?}", small.state.masks);
    let error = difference(simulated, small.model.forward(tokens(&device)));
    assert!(error < 1e-6, "{error}");
    let directory = TempDir::new().unwrap();
    assert_reloads(&small, Net::new(&device), directory.path(), |net| {
        net.forward(tokens(&device))
    });
}

fn a_plain_norm_names_the_change<N: Normalize>(kind: &str) {
    let error = taylor::<N>(STREAM).unwrap_err();
    let change = format!("make the field `norm1` a `Wrapper<{kind}>`");
    let reason = format!("the plain `{kind}` `norm1`");
    assert_says(&error, &[&reason, &change]);
    assert!(!error.to_string().contains("mean_dim"), "{error}");
}

#[test]
fn plain_norms_over_channels_name_the_change() {
    a_plain_norm_names_the_change::<LayerNorm>("LayerNorm");
    a_plain_norm_names_the_change::<RmsNorm>("RmsNorm");
}

/// A run that is stopped and resumed is the same, bit for bit, while a norm leaves channels out.
#[test]
fn a_run_with_masked_norms_goes_on_after_a_stop() {
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("run.checkpoint");
    let budget = Budget::steps(8);
    let whole = taylor::<Wrapper<LayerNorm>>(STREAM).unwrap();
    let whole = whole.compress(budget.clone()).unwrap();
    let mut begun = taylor::<Wrapper<LayerNorm>>(STREAM).unwrap();
    begun.advance(&budget, Some(5)).unwrap();
    begun.save_checkpoint(&path).unwrap();
    let resumed = taylor::<Wrapper<LayerNorm>>(STREAM).unwrap();
    let resumed = resumed.resume(&path).unwrap().compress(budget).unwrap();
    let mask = &resumed.masks()[&id("norm1.gamma")];
    assert_eq!(mask.removed(), WIDTH / 2);
    assert_eq!(resumed.masks(), whole.masks());
    let outputs = |net: &Transformer<_>| net.forward(tokens(&Device::flex())).into_data();
    outputs(resumed.model()).assert_eq(&outputs(whole.model()), true);
    let weights = |net: &Transformer<_>| net.up.weight.base().into_data();
    weights(resumed.model()).assert_eq(&weights(whole.model()), true);
}

/// A model before the run is not drawn into it: what `valid` gave has no masks.
#[test]
fn a_teacher_keeps_all_channels() {
    let device = Device::flex();
    let teacher = Transformer::<Wrapper<LayerNorm>>::new(&device).valid();
    let before = teacher.forward(tokens(&device)).into_data();
    let chain = taylor::<Wrapper<LayerNorm>>(STREAM).unwrap();
    drop(chain.compress(Budget::steps(4)).unwrap());
    let after = teacher.forward(tokens(&device)).into_data();
    after.assert_eq(&before, true);
}

/// Masks from elsewhere, of which the last channel is not masked in the embedding: it stays, and the
/// norms leave it out in the small model as well.
#[test]
fn a_channel_that_only_the_norms_mask_stays_out_of_their_statistics() {
    type Net = Transformer<Wrapper<LayerNorm>>;
    let device = Device::flex();
    let model = Net::new(&device);
    let gone = [1, 2, 7];
    let kept = |at: usize| if gone.contains(&at) { 0.0 } else { 1.0 };
    let row: Vec<f32> = (0..WIDTH).map(kept).collect();
    let vectors = ["norm1", "norm2", "norm3"]
        .map(|norm| [".gamma", ".beta"].map(|name| format!("{norm}{name}")));
    let mut masks = Masks::new();
    for name in vectors
        .concat()
        .iter()
        .map(String::as_str)
        .chain(["output.bias", "down.bias"])
    {
        masks.insert(id(name), Mask::new(row.clone(), [WIDTH]).unwrap());
    }
    for (name, rows) in [("output.weight", 6), ("down.weight", 12)] {
        masks.insert(
            id(name),
            Mask::new(row.repeat(rows), [rows, WIDTH]).unwrap(),
        );
    }
    let mut embedding = row.clone();
    embedding[7] = 1.0;
    masks.insert(
        id("embedding.weight"),
        Mask::new(embedding.repeat(11), [11, WIDTH]).unwrap(),
    );
    let dummy = DummyInput::new(tokens(&device), |net: &Net, x| net.forward(x));
    let speedup = ModelSpeedup::from_masks(model.clone(), dummy, &masks).unwrap();
    let small = speedup.speedup_model().unwrap();
    assert_eq!(small.model.embedding.weight.dims(), [11, WIDTH - 2]);
    assert_eq!(small.state.masks[&id("norm2.gamma")].removed(), 1);
    let directory = TempDir::new().unwrap();
    assert_reloads(&small, model, directory.path(), |net| {
        net.forward(tokens(&device))
    });
}

/// A convolution, a norm over its channels and a residual branch, `[batch, 1, 6, 6] -> [batch, 2]`.
#[derive(Module, Debug)]
struct Residual<N: Module> {
    stem: Conv2d,
    norm1: N,
    depthwise: Wrapper<Conv2d>,
    norm2: N,
    point: Conv2d,
    norm3: BatchNorm,
    head: Linear,
}

/// Layers that normalize `[batch, 12, height, width]`.
trait NormalizeImages: Module + burn::module::ModuleDisplay + 'static {
    fn normalize(&self, x: Tensor<4>) -> Tensor<4>;
}

macro_rules! normalize_images {
    ($($layer:ty),+) => {$(
        impl NormalizeImages for $layer {
            fn normalize(&self, x: Tensor<4>) -> Tensor<4> {
                self.forward(x)
            }
        }
    )+};
}

normalize_images!(
    Wrapper<GroupNorm>,
    GroupNorm,
    Wrapper<InstanceNorm>,
    InstanceNorm
);

impl<N: NormalizeImages> Residual<N> {
    fn new(norm: impl Fn() -> N, device: &Device) -> Self {
        device.seed(3);
        let conv = |i, o, size| Conv2dConfig::new([i, o], [size, size]).init(device);
        Self {
            stem: conv(1, 12, 3),
            norm1: norm(),
            depthwise: Conv2dConfig::new([12, 12], [1, 1])
                .with_groups(12)
                .init(device)
                .into(),
            norm2: norm(),
            point: conv(12, 12, 1),
            norm3: BatchNormConfig::new(12).init(device),
            head: LinearConfig::new(12, 2).init(device),
        }
    }

    fn forward(&self, images: Tensor<4>) -> Tensor<2> {
        let x = relu(self.norm1.normalize(self.stem.forward(images)));
        let y = self.norm2.normalize(self.depthwise.forward(x.clone()));
        let x = relu(self.norm3.forward(self.point.forward(relu(y)) + x));
        self.head.forward(x.mean_dim(3).mean_dim(2).flatten(1, 3))
    }
}

const IMAGES: &str = r#"[{
    "op_names": ["stem", "depthwise", "point"], "target_names": ["weight"], "sparse_ratio": 0.5
}]"#;

fn images(model: &Residual<impl NormalizeImages>) -> Tensor<4> {
    model.devices()[0].seed(1);
    Tensor::random([2, 1, 6, 6], Distribution::Default, &Device::flex())
}

fn prune_images<N: NormalizeImages>(
    model: Residual<N>,
    rules: &str,
) -> Result<Compressor<Residual<N>, ()>, Error> {
    let dummy = DummyInput::new(images(&model), |net: &Residual<N>, x| net.forward(x));
    let evaluator = Evaluator::new().with_dummy_input(dummy);
    let config = ConfigList::from_json(rules).unwrap();
    L1NormPruner::new(model, &config, evaluator, PrunerConfig::new())
}

fn images_are_cut<N: NormalizeImages>(model: Residual<N>, rules: &str) -> Residual<N> {
    let compressed = prune_images(model.clone(), rules).unwrap();
    let compressed = compressed.compress(Budget::none()).unwrap();
    let x = images(&model) * 3.0 - 1.0;
    let simulated = compressed.model().forward(x.clone());
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    assert_eq!(small.model.stem.weight.dims()[0], 6);
    assert_eq!(small.model.depthwise.groups, 6);
    let error = difference(simulated, small.model.forward(x.clone()));
    assert!(error < 1e-6, "{error}");
    println!("largest relative error {error:e}");
    let directory = TempDir::new().unwrap();
    assert_reloads(&small, model, directory.path(), |net| {
        net.forward(x.clone())
    });
    small.model
}

/// As many channels of each of the three groups; the number of groups stays.
#[test]
fn group_norms_lose_the_same_in_each_group() {
    let device = Device::flex();
    let norm = || GroupNormConfig::new(3, 12).init(&device).into();
    let small = images_are_cut::<Wrapper<GroupNorm>>(Residual::new(norm, &device), IMAGES);
    assert_eq!((small.norm1.num_groups, small.norm1.num_channels), (3, 6));
}

/// Two of four groups go, with all their channels.
#[test]
fn group_norms_lose_whole_groups() {
    let device = Device::flex();
    let norm = || GroupNormConfig::new(4, 12).init(&device).into();
    let rules = IMAGES.replace("0.5", r#"0.5, "granularity": "head""#);
    let model = Residual::new(norm, &device);
    let small = images_are_cut::<Wrapper<GroupNorm>>(model, &rules);
    assert_eq!((small.norm1.num_groups, small.norm1.num_channels), (2, 6));
    assert_eq!((small.norm2.num_groups, small.norm2.num_channels), (2, 6));
}

#[test]
fn instance_norms_lose_any_channels() {
    let device = Device::flex();
    for affine in [true, false] {
        let norm = || {
            let config = InstanceNormConfig::new(12).with_affine(affine);
            config.init(&device).into()
        };
        let small = images_are_cut::<Wrapper<InstanceNorm>>(Residual::new(norm, &device), IMAGES);
        assert_eq!(small.norm2.num_channels, 6);
    }
}

#[test]
fn plain_norms_of_images_name_the_change() {
    let device = Device::flex();
    let plain = Residual::new(|| GroupNormConfig::new(3, 12).init(&device), &device);
    let error = prune_images::<GroupNorm>(plain, IMAGES).unwrap_err();
    assert_says(
        &error,
        &[
            "the plain `GroupNorm` `norm1`",
            "make the field `norm1` a `Wrapper<GroupNorm>`",
        ],
    );
    let plain = Residual::new(|| InstanceNormConfig::new(12).init(&device), &device);
    let error = prune_images::<InstanceNorm>(plain, IMAGES).unwrap_err();
    assert_says(
        &error,
        &[
            "`num_channels` of `norm1`",
            "make the field `norm1` a `Wrapper<InstanceNorm>`",
        ],
    );
}

/// Nothing tells which channels of a group norm without parameters are masked.
#[test]
fn a_group_norm_without_parameters_is_refused() {
    let device = Device::flex();
    let config = GroupNormConfig::new(3, 12).with_affine(false);
    let model = Residual::new(|| Wrapper::new(config.init(&device)), &device);
    let error = prune_images(model, IMAGES).unwrap_err();
    assert_says(
        &error,
        &["`norm1` has no `gamma` and `beta`", "with_affine(true)"],
    );
}
