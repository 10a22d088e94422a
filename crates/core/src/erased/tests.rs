use std::any::Any;
use std::collections::BTreeSet;

use burn::module::{Module, ModuleMapper, ModuleVisitor, Param};
use burn::nn::{BatchNorm, BatchNormConfig, Linear, LinearConfig};
use burn::optim::{GradientsParams, SgdConfig};
use burn::tensor::{Bool, Device, Int, Tensor};

use super::{AnyBatch, AnyModel, pushed};
use crate::{
    Algorithm, BoxError, Budget, Compressor, Evaluator, Mask, Mode, Run, Target, TargetId,
};

#[derive(Module, Debug)]
struct Net {
    blocks: Vec<Linear>,
    norm: BatchNorm,
    ids: Param<Tensor<1, Int>>,
    flags: Param<Tensor<2, Bool>>,
    absent: Option<Linear>,
}

fn net() -> Net {
    let device = Device::flex();
    let linear = LinearConfig::new(2, 2).init(&device);
    Net {
        // The second shares its parameters with the first.
        blocks: vec![linear.clone(), linear],
        norm: BatchNormConfig::new(2).init(&device),
        ids: Param::initialized(Default::default(), Tensor::from_ints([3, 1], &device)),
        flags: Param::initialized(Default::default(), Tensor::empty([1, 2], &device)),
        absent: None,
    }
}

/// What a visitor or mapper is called with.
#[derive(Default, PartialEq, Debug)]
struct Log(Vec<String>);

impl Log {
    fn add(&mut self, what: &str, id: u64, dims: &[usize]) {
        self.0.push(format!("{what} {id} {dims:?}"));
    }
}

impl ModuleVisitor for Log {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.push(format!("enter {name} of {container}"));
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.push(format!("exit {name} of {container}"));
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        self.add("float", param.id.val(), &param.base().dims());
    }

    fn visit_int<const D: usize>(&mut self, param: &Param<Tensor<D, Int>>) {
        self.add("int", param.id.val(), &param.base().dims());
    }

    fn visit_bool<const D: usize>(&mut self, param: &Param<Tensor<D, Bool>>) {
        self.add("bool", param.id.val(), &param.base().dims());
    }
}

/// Adds 1 to integers and to floats, and turns truth values around.
#[derive(Default)]
struct Change(Log);

impl ModuleMapper for Change {
    fn enter_module(&mut self, name: &str, container: &str) {
        self.0.enter_module(name, container);
    }

    fn exit_module(&mut self, name: &str, container: &str) {
        self.0.exit_module(name, container);
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        self.0.visit_float(&param);
        param.map(|tensor| tensor + 1.0)
    }

    fn map_int<const D: usize>(&mut self, param: Param<Tensor<D, Int>>) -> Param<Tensor<D, Int>> {
        self.0.visit_int(&param);
        param.map(|tensor| tensor + 1)
    }

    fn map_bool<const D: usize>(
        &mut self,
        param: Param<Tensor<D, Bool>>,
    ) -> Param<Tensor<D, Bool>> {
        self.0.visit_bool(&param);
        param.map(Tensor::bool_not)
    }
}

#[test]
fn a_visit_sees_what_it_sees_of_the_model() {
    let net = net();
    let (mut expected, mut found) = (Log::default(), Log::default());
    net.visit(&mut expected);
    let model = AnyModel::new(net.clone());
    model.visit(&mut found);
    assert_eq!(found, expected);
    assert!(found.0.len() > 20 && found.0.iter().any(|line| line.starts_with("bool")));
    assert_eq!(format!("{model:?}"), format!("{net:?}"));
    assert_eq!(model.devices(), net.devices());
}

#[test]
fn a_map_changes_what_it_changes_of_the_model() {
    let net = net();
    let values = |net: &Net| {
        [
            net.blocks[1].weight.base().into_data(),
            net.norm.running_mean.value().into_data(),
            net.ids.base().into_data(),
            net.flags.base().into_data(),
        ]
    };
    let (mut expected, mut found) = (Change::default(), Change::default());
    let by_hand = net.valid().map(&mut expected);
    let model = AnyModel::new(net).valid().map(&mut found);
    assert_eq!(found.0, expected.0);
    assert_eq!(values(&model.into_typed()), values(&by_hand));
}

#[test]
fn a_model_whose_type_is_erased_stays_as_it_is() {
    let model = AnyModel::new(AnyModel::new(net()));
    assert_eq!(model.get::<Net>().blocks.len(), 2);
    assert_eq!(model.get::<AnyModel>().get::<Net>().blocks.len(), 2);
    let model: AnyModel = model.into_typed();
    assert_eq!(model.into_typed::<Net>().blocks.len(), 2);
}

#[test]
#[should_panic(expected = "burn_nn::modules::linear::Linear")]
fn a_model_is_no_other() {
    AnyModel::new(net()).get::<Linear>();
}

#[test]
fn a_batch_is_found_again_while_it_is_lent() {
    let batch = AnyBatch::new(vec![1, 2]);
    assert_eq!(batch.get::<Vec<i32>>(), &[1, 2]);
    assert!(AnyBatch::lent(&vec![1, 2]).is_none());
    batch.lend(|inner: &Vec<i32>| {
        let found = AnyBatch::lent(inner).expect("the batch itself");
        assert!(std::ptr::eq(found.get::<Vec<i32>>(), inner));
        assert!(
            AnyBatch::lent(&inner.clone()).is_none(),
            "an equal one is another"
        );
    });
    assert!(AnyBatch::lent(batch.get::<Vec<i32>>()).is_none());
}

/// Written for all types: adds the number of rows of the batch, whose type it is told.
struct Rows(fn(&dyn Any) -> usize);

impl<M: Module, I: 'static> Algorithm<M, I> for Rows {
    fn name(&self) -> &'static str {
        "Rows"
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &I,
        _run: Run<'_, M>,
    ) -> Result<Tensor<1>, BoxError> {
        Ok(loss + (self.0)(batch) as f64)
    }
}

/// Written for one type of model: doubles the loss of the algorithm inside.
struct Doubled(Box<dyn Algorithm<Linear, Tensor<2>>>);

impl Algorithm<Linear, Tensor<2>> for Doubled {
    fn name(&self) -> &'static str {
        "Doubled"
    }

    fn mode(&self) -> Mode {
        Mode::Distillation
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &Tensor<2>,
        run: Run<'_, Linear>,
    ) -> Result<Tensor<1>, BoxError> {
        assert_eq!(run.model.weight.dims(), [2, 2]);
        Ok(self.0.loss(loss, batch, run)? * 2.0)
    }

    fn gradients(
        &mut self,
        gradients: &GradientsParams,
        run: Run<'_, Linear>,
    ) -> Result<(), BoxError> {
        match gradients.get::<2>(run.model.weight.id) {
            Some(_) => Ok(()),
            None => Err("no gradient of the weight".into()),
        }
    }
}

fn chain() -> Compressor<Linear, Tensor<2>> {
    let device = Device::flex();
    let evaluator = Evaluator::new()
        .with_data(|_| vec![Tensor::<2>::ones([3, 2], &Device::flex())])
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(0.1)
        .with_loss(|model: &Linear, batch: &Tensor<2>| model.forward(batch.clone()).mean() * 0.0);
    Compressor::from_model(LinearConfig::new(2, 2).init(&device), evaluator)
}

fn losses(chain: Compressor<Linear, Tensor<2>>) -> Vec<f64> {
    let compressed = chain.compress(Budget::steps(2)).unwrap();
    let steps = compressed.history().steps.iter();
    steps.map(|step| step.loss).collect()
}

/// The number of rows of a batch of unknown type.
fn rows(batch: &dyn Any) -> usize {
    let batch = batch.downcast_ref::<AnyBatch>().expect("no type is known");
    batch.get::<Tensor<2>>().dims()[0]
}

#[test]
fn algorithms_of_all_types_and_of_one_are_fused() {
    let mut chain = chain();
    chain.chain().erased().push(Rows(rows));
    chain.chain().push(Doubled(Box::new(Rows(|batch| {
        batch
            .downcast_ref::<Tensor<2>>()
            .expect("its type is known")
            .dims()[1]
    }))));
    assert_eq!(chain.algorithms(), ["Rows", "Doubled"]);
    // The newest first: (0 + 2) * 2 + 3.
    assert_eq!(losses(chain), [7.0, 7.0]);
}

#[test]
fn an_algorithm_of_all_types_sees_the_batch_inside_one_of_one() {
    let mut chain = chain();
    chain.chain().erased().push(Rows(rows));
    let taken = chain.chain().pop().expect("it was pushed");
    assert_eq!(taken.name(), "Rows");
    chain.chain().push(Doubled(taken));
    assert_eq!(losses(chain), [6.0, 6.0]);
}

#[test]
fn what_is_taken_off_and_pushed_again_is_what_it_was() {
    let mut chain = chain();
    chain.chain().erased().push(Rows(rows));
    let taken = chain.chain().pop().expect("it was pushed");
    chain.inner.algorithms.push(pushed(taken));
    let again: Box<dyn Any> = chain.chain().erased().pop().expect("it was pushed");
    assert!(again.is::<Rows>());

    chain.chain().push(Doubled(Box::new(Rows(rows))));
    let typed: Box<dyn Any> = chain.chain().pop().expect("it was pushed");
    assert!(typed.is::<Doubled>());
}

#[test]
fn an_algorithm_taken_off_sees_no_batch_but_those_of_the_run() {
    let mut chain = chain();
    chain.chain().erased().push(Rows(|_| 0));
    let mut taken = chain.chain().pop().expect("it was pushed");
    let batch = Tensor::<2>::ones([3, 2], &Device::flex());
    let run = Run {
        model: chain.model(),
        step: 0,
        total_steps: 1,
    };
    let error = taken.loss(Tensor::ones([1], &Device::flex()), &batch, run);
    let error = error.unwrap_err().to_string();
    assert!(error.contains("batches of the run"), "{error}");
}

/// The names of the functions in a part of a source, from a line that begins with `begin` to the next
/// line with a closing brace alone.
fn functions<'a>(source: &'a str, begin: &str) -> BTreeSet<&'a str> {
    let lines = source.lines().skip_while(|line| !line.starts_with(begin));
    let lines = lines.take_while(|line| *line != "}");
    let names = lines.filter_map(|line| line.trim_start().strip_prefix("fn "));
    names
        .filter_map(|line| line.split(['(', '<']).next())
        .collect()
}

/// A hook with a default that an adapter forgot would do nothing, silently.
#[test]
fn adapters_forward_every_hook() {
    let hooks = functions(include_str!("../run/algorithm.rs"), "pub trait Algorithm<");
    assert!(hooks.contains("loss") && hooks.len() > 15, "{hooks:?}");
    let adapters = include_str!("algorithm.rs");
    let common = functions(adapters, "macro_rules! forward");
    for name in ["Typed", "Untyped"] {
        let own = functions(adapters, &adapter(name));
        let forwarded: BTreeSet<&str> = own.union(&common).copied().collect();
        assert_eq!(forwarded, hooks, "{name}");
    }
}

/// The line with which the implementation of an adapter begins.
fn adapter(name: &str) -> String {
    let types = match name {
        "Typed" => "AnyModel, AnyBatch",
        _ => "M, I",
    };
    format!("impl<M: Module + 'static, I: 'static> Algorithm<{types}> for {name}<M, I>")
}

#[test]
fn states_that_the_model_carries_are_those_of_the_chain() {
    let mut chain = chain();
    let weight = TargetId::new("", Target::param("weight"));
    let space = chain
        .chain()
        .claim(Mode::Pruning, std::slice::from_ref(&weight))
        .unwrap();
    let mask = Mask::new(vec![1.0, 0.0, 0.0, 1.0], [2, 2]).unwrap();
    space[0].set_mask(Some(mask.clone())).unwrap();
    let masked: Vec<f32> = chain.model().weight.val().into_data().try_to_vec().unwrap();
    assert_eq!((masked[1], masked[2]), (0.0, 0.0));
    assert_eq!(chain.masks()[&weight], mask);
}
