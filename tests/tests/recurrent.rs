//! Recurrent layers that lose hidden units: one group through all gates, both weights of each, the
//! states and what reads them.

use burn::module::{Module, ModuleDisplay, Param};
use burn::nn::{
    BiGru, BiGruConfig, BiLstm, BiLstmConfig, Gru, GruConfig, Linear, LinearConfig, Lstm,
    LstmConfig, LstmState,
};
use burn::optim::SgdConfig;
use burn::tensor::activation::{sigmoid, tanh};
use burn::tensor::{Device, Distribution, Tensor};
use burn_compress::prelude::*;
use burn_compress::speedup::load_small;
use burn_compress_tests::chains::{assert_says, id};
use burn_compress_tests::random::Random;
use tempfile::TempDir;

const HIDDEN: usize = 6;

/// Recurrent layers from 4 features to `HIDDEN` units.
trait Recurrent: Module + ModuleDisplay + 'static {
    const DIRECTIONS: usize;

    fn of(device: &Device) -> Self;

    /// The sequence and, where the layer gives it, its state at the end.
    fn run(&self, x: Tensor<3>) -> Tensor<3>;

    fn hidden(&self) -> usize;
}

macro_rules! recurrent {
    ($($layer:ty, $config:ty, $directions:literal, |$rnn:ident, $x:ident| $run:expr;)+) => {$(
        impl Recurrent for $layer {
            const DIRECTIONS: usize = $directions;

            fn of(device: &Device) -> Self {
                <$config>::new(4, HIDDEN, true).init(device).into()
            }

            fn run(&self, $x: Tensor<3>) -> Tensor<3> {
                let $rnn = self;
                $run
            }

            fn hidden(&self) -> usize {
                self.d_hidden
            }
        }
    )+};
}

recurrent! {
    Wrapper<Lstm>, LstmConfig, 1, |rnn, x| rnn.forward(x).0;
    Wrapper<Gru>, GruConfig, 1, |rnn, x| rnn.forward(x);
    Wrapper<BiLstm>, BiLstmConfig, 2, |rnn, x| rnn.forward(x).0;
    Wrapper<BiGru>, BiGruConfig, 2, |rnn, x| rnn.forward(x).0;
    Lstm, LstmConfig, 1, |rnn, x| rnn.forward(x, None).0;
    BiGru, BiGruConfig, 2, |rnn, x| rnn.forward(x, None).0;
}

/// `[batch, steps, 3] -> [batch, 2]`
#[derive(Module, Debug)]
struct Classifier<R: Recurrent> {
    first: Linear,
    rnn: R,
    head: Linear,
}

impl<R: Recurrent> Classifier<R> {
    fn new(device: &Device) -> Self {
        device.seed(5);
        Self {
            first: LinearConfig::new(3, 4).init(device),
            rnn: R::of(device),
            head: LinearConfig::new(R::DIRECTIONS * HIDDEN, 2).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let x = self.rnn.run(self.first.forward(x));
        self.head.forward(x.mean_dim(1).squeeze_dim(1))
    }
}

/// The same for the same seed, whatever other tests draw.
fn sequences(seed: u64) -> Tensor<3> {
    let mut random = Random::new(seed);
    let values = (0..2 * 5 * 3).map(|_| 2.0 * random.symmetric());
    let values: Vec<f32> = values.collect();
    Tensor::<1>::from_floats(&values[..], &Device::flex()).reshape([2, 5, 3])
}

/// All weights of the recurrent layer, whose columns are the hidden units.
const UNITS: &str = r#"[{
    "op_names_re": ["rnn\\..*"], "op_types": ["Linear"], "target_names": ["weight"],
    "sparse_ratio": 0.5
}]"#;

fn prune<R: Recurrent>() -> Result<Compressor<Classifier<R>, Tensor<3>>, Error> {
    let dummy = DummyInput::new(sequences(1), |net: &Classifier<R>, x| net.forward(x));
    let evaluator = Evaluator::new()
        .with_dummy_input(dummy)
        .with_data(|_| vec![sequences(2), sequences(3), sequences(4)])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|net: &Classifier<R>, x: &Tensor<3>| {
            let device = net.devices()[0].clone();
            net.forward(x.clone().to_device(&device)).square().mean()
        });
    let config = ConfigList::from_json(UNITS).unwrap();
    let model = Classifier::<R>::new(&Device::flex());
    TaylorPruner::new(model, &config, evaluator, TaylorConfig::new(2))
}

fn units_are_cut<R: Recurrent>(gates: usize) {
    let compressed = prune::<R>().unwrap().compress(Budget::steps(6)).unwrap();
    let simulated = compressed.model().forward(sequences(9));
    let small = compressed.speedup().unwrap();
    assert!(small.report.uncut.is_empty(), "{:?}", small.report.uncut);
    let kept = HIDDEN / 2;
    let net = &small.model;
    assert_eq!(net.rnn.hidden(), kept);
    assert_eq!(net.head.weight.dims(), [R::DIRECTIONS * kept, 2]);
    let found = net.forward(sequences(9));
    let largest = simulated.clone().abs().max().into_scalar::<f32>();
    let error = (simulated - found.clone()).abs().max().into_scalar::<f32>() / largest;
    assert!(error < 1e-6, "{error}");
    println!("largest relative error {error:e}");
    // Each step of each gate reads 4 features and the hidden units.
    let macs = |units: usize| 5 * gates * R::DIRECTIONS * (4 * units + units * units);
    let around = |units: usize| 5 * 3 * 4 + R::DIRECTIONS * units * 2;
    let expected = (macs(HIDDEN) + around(HIDDEN), macs(kept) + around(kept));
    let counted = (
        small.report.macs.dense as usize,
        small.report.macs.small as usize,
    );
    assert_eq!(counted, expected);
    let directory = TempDir::new().unwrap();
    let path = directory.path().join("small.bin");
    small.save(&path).unwrap();
    let (again, _) = load_small(Classifier::<R>::new(&Device::flex()), &path).unwrap();
    assert_eq!(again.rnn.hidden(), kept);
    again
        .forward(sequences(9))
        .into_data()
        .assert_eq(&found.into_data(), true);
}

#[test]
fn an_lstm() {
    units_are_cut::<Wrapper<Lstm>>(4);
}

#[test]
fn a_gru() {
    units_are_cut::<Wrapper<Gru>>(3);
}

#[test]
fn an_lstm_in_both_directions() {
    units_are_cut::<Wrapper<BiLstm>>(4);
}

#[test]
fn a_gru_in_both_directions() {
    units_are_cut::<Wrapper<BiGru>>(3);
}

/// A plain layer names the change.
#[test]
fn plain_layers_name_the_change() {
    let error = prune::<Lstm>().unwrap_err();
    assert_says(
        &error,
        &[
            "`d_hidden` of `rnn` is a constant of the plain `Lstm`",
            "make the field `rnn` a `Wrapper<Lstm>`",
        ],
    );
    let error = prune::<BiGru>().unwrap_err();
    assert_says(&error, &["make the field `rnn` a `Wrapper<BiGru>`"]);
}

/// Two layers: the second begins with the state that the first ends with, `[batch, 5, 3] -> [batch, 2]`.
#[derive(Module, Debug)]
struct Translator {
    encoder: Wrapper<Lstm>,
    decoder: Wrapper<Lstm>,
    head: Linear,
}

impl Translator {
    fn new(device: &Device) -> Self {
        device.seed(6);
        Self {
            encoder: LstmConfig::new(3, HIDDEN, true).init(device).into(),
            decoder: LstmConfig::new(3, HIDDEN, true).init(device).into(),
            head: LinearConfig::new(HIDDEN, 2).init(device),
        }
    }

    fn forward(&self, x: Tensor<3>) -> Tensor<2> {
        let (_, state) = self.encoder.forward(x.clone());
        let (_, state) = self.decoder.forward((x, Some(state)));
        self.head.forward(state.hidden)
    }
}

fn prune_translator<X: burn_compress::graph::ForwardInputs + Clone + 'static>(
    x: X,
    forward: fn(&Translator, X) -> Tensor<2>,
) -> Result<Compressor<Translator, ()>, Error> {
    let evaluator = Evaluator::new().with_dummy_input(DummyInput::new(x, forward));
    let rules = UNITS.replace("rnn", "(encoder|decoder)");
    let config = ConfigList::from_json(&rules).unwrap();
    let model = Translator::new(&Device::flex());
    L1NormPruner::new(model, &config, evaluator, PrunerConfig::new())
}

#[test]
fn a_state_that_is_passed_on_joins_two_layers() {
    let chain = prune_translator(sequences(1), Translator::forward).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let masks = compressed.masks();
    let of = |layer: &str| masks[&id(&format!("{layer}.cell_gate.input_transform.bias"))].clone();
    assert_eq!(of("encoder"), of("decoder"));
    let small = compressed.speedup().unwrap().model;
    assert_eq!((small.encoder.d_hidden, small.decoder.d_hidden), (3, 3));
}

/// A state that comes with the input keeps its size, and so do the units.
#[test]
fn a_state_that_the_user_gives_is_refused() {
    let device = Device::flex();
    let state = Tensor::<2>::ones([2, HIDDEN], &device);
    let error = prune_translator((sequences(1), state), |net, (x, state)| {
        let state = LstmState::new(state.clone(), state);
        let (_, state) = net.encoder.forward((x.clone(), Some(state)));
        let (_, state) = net.decoder.forward((x, Some(state)));
        net.head.forward(state.hidden)
    });
    assert_says(
        &error.unwrap_err(),
        &["the initial state of `encoder` is an input of the model"],
    );
}

/// A layer that begins with a learned state, or with one that is computed.
#[derive(Module, Debug)]
struct Begun {
    start: Param<Tensor<2>>,
    first: Linear,
    rnn: Wrapper<Gru>,
    head: Linear,
}

impl Begun {
    fn new(device: &Device) -> Self {
        device.seed(8);
        Self {
            start: Param::from_tensor(Tensor::random([1, HIDDEN], Distribution::Default, device)),
            first: LinearConfig::new(3, HIDDEN).init(device),
            rnn: GruConfig::new(3, HIDDEN, true).init(device).into(),
            head: LinearConfig::new(HIDDEN, 2).init(device),
        }
    }

    fn run(&self, x: Tensor<3>, state: Tensor<2>) -> Tensor<2> {
        let x = self.rnn.forward((x, Some(state)));
        self.head.forward(x.mean_dim(1).squeeze_dim(1))
    }

    fn learned(&self, x: Tensor<3>) -> Tensor<2> {
        let state = self.start.val().expand([x.dims()[0], self.start.dims()[1]]);
        self.run(x, state)
    }

    fn computed(&self, x: Tensor<3>, function: fn(Tensor<2>) -> Tensor<2>) -> Tensor<2> {
        let state = function(self.first.forward(x.clone().narrow(1, 0, 1).squeeze_dim(1)));
        self.run(x, state)
    }
}

fn prune_begun(
    rules: &str,
    forward: impl Fn(&Begun, Tensor<3>) -> Tensor<2> + Send + Sync + 'static,
) -> Result<Compressor<Begun, ()>, Error> {
    let evaluator = Evaluator::new().with_dummy_input(DummyInput::new(sequences(1), forward));
    let config = ConfigList::from_json(rules).unwrap();
    L1NormPruner::new(
        Begun::new(&Device::flex()),
        &config,
        evaluator,
        PrunerConfig::new(),
    )
}

#[test]
fn a_learned_state_goes_with_the_units() {
    let chain = prune_begun(UNITS, Begun::learned).unwrap();
    let compressed = chain.compress(Budget::none()).unwrap();
    let simulated = compressed.model().learned(sequences(9));
    let small = compressed.speedup().unwrap().model;
    assert_eq!(small.start.dims(), [1, HIDDEN / 2]);
    let error = (simulated - small.learned(sequences(9)))
        .abs()
        .max()
        .into_scalar::<f32>();
    assert!(error < 1e-6, "{error}");
}

/// A state that is zero for a masked unit is followed, one that is a half is not.
#[test]
fn a_computed_state_has_to_be_zero_for_a_masked_unit() {
    let rules = UNITS
        .replace(r#""rnn"#, r#""(rnn"#)
        .replace(r#".*""#, r#".*|first)""#);
    let zero = prune_begun(&rules, |net, x| net.computed(x, tanh)).unwrap();
    let small = zero
        .compress(Budget::none())
        .unwrap()
        .speedup()
        .unwrap()
        .model;
    assert_eq!((small.first.weight.dims(), small.rnn.d_hidden), ([3, 3], 3));
    let half = prune_begun(&rules, |net, x| net.computed(x, sigmoid)).unwrap_err();
    assert_says(
        &half,
        &["the initial state of a masked unit of `rnn` is not zero"],
    );
}
