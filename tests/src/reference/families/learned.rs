//! The part of family E whose scales are learned: LSQ and LSQ+.
//!
//! Most cases give values, scales and upstream gradients; `e_lsq_train` is a training run from the
//! constant start 0.01, through the chain.

use std::sync::{Arc, Mutex};

use burn::optim::GradientsParams;
use burn::tensor::{Device, Tensor};
use burn_compress::quantization::{LsqConfig, LsqInit, LsqQuantizer, QuantDtype, lsq, lsq_plus};
use burn_compress::target::{Mode, TargetId};
use burn_compress::{
    Algorithm, AlgorithmState, BoxError, Budget, Compressor, FlatTensor, Grid, Learnable, Run,
};
use indexmap::IndexMap;
use serde_json::Value;

use crate::reference::activation::Activation;
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::config::{self, DefaultBlock};
use crate::reference::drive::{self, Step};
use crate::reference::model::RefModel;
use crate::reference::targets;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run.
pub fn run(case: &Case) -> Result<Checks> {
    match case.file.arguments.get("steps") {
        Some(_) => train(case),
        None => compare_values(case),
    }
}

/// Quantizes given values with given scales and compares all gradients.
fn compare_values(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let model = RefModel::build(case.model()?, &device)?;
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let dtype = case.file.config_list[0]["quant_dtype"].as_str();
    let dtype: QuantDtype = dtype
        .unwrap_or_default()
        .parse()
        .map_err(|error| case.error(error))?;
    let ranges: IndexMap<String, Value> = case.expected("targets")?;
    for (target, range) in &ranges {
        let id = targets::id(&model, &layer, target)?;
        let end = |key: &str| range[key].as_f64();
        let got = (Some(f64::from(dtype.qmin())), Some(f64::from(dtype.qmax())));
        checks.equal(
            &format!("range of {target}"),
            got,
            (end("qmin"), end("qmax")),
        );

        let x = targets::convert(&model, &id, case.array(&format!("x/{target}"))?);
        let scale = case.array(&format!("scale/{target}"))?;
        let (grid, scale) = targets::grid(&model, &id, x.shape.len(), scale);
        let leaf =
            |values: Vec<f32>| Tensor::<1>::from_floats(values.as_slice(), &device).require_grad();
        let (values, scale) = (leaf(x.values.clone()), leaf(scale));
        let value = FlatTensor {
            values: values.clone(),
            shape: x.shape.clone(),
        };
        let zero_point = case.tensors.get(&format!("zero_point/{target}"));
        let zero_point =
            zero_point.map(|array| leaf(targets::grid(&model, &id, x.shape.len(), array).1));
        let quantized = match &zero_point {
            Some(zero_point) => {
                lsq_plus::quantize(value, &grid, scale.clone(), zero_point.clone(), dtype)
            }
            None => lsq::quantize(value, &grid, scale.clone(), dtype),
        };
        let y = quantized.map_err(|error| case.error(error))?;
        let upstream = targets::convert(&model, &id, case.array(&format!("upstream/{target}"))?);
        let upstream = Tensor::<1>::from_floats(upstream.values.as_slice(), &device);
        let gradients = (y.values.clone() * upstream).sum().backward();

        let full = |values: Tensor<1>| {
            let values = Array::from_tensor(values).values;
            targets::convert(&model, &id, &Array::float(x.shape.clone(), values))
        };
        let blocks = |values: Tensor<1>| per_block(&model, &id, &grid, values);
        checks.array(case, &format!("y/{target}"), &full(y.values));
        let learned = [("grad_scale", Some(scale)), ("grad_zero_point", zero_point)];
        match values.grad(&gradients) {
            Some(gradient) => checks.array(case, &format!("grad_x/{target}"), &full(gradient)),
            None => checks.fail(format!("grad_x/{target}: no gradient")),
        }
        for (name, tensor) in learned {
            let Some(tensor) = tensor else { continue };
            match tensor.grad(&gradients) {
                Some(gradient) => {
                    let gradient = blocks(gradient)?;
                    checks.array(case, &format!("{name}/{target}"), &gradient);
                }
                None => checks.fail(format!("{name}/{target}: no gradient")),
            }
        }
    }
    Ok(checks)
}

fn per_block(model: &RefModel, id: &TargetId, grid: &Grid, values: Tensor<1>) -> Result<Array> {
    let values = Array::from_tensor(values).values;
    targets::block_values(model, id, grid, Some(&values))
}

/// Trains with scales that begin at NNI's constant.
///
/// What is compared as the scale is what is trained, whose magnitude is the scale: NNI's scale of
/// the output becomes negative in this case, which on a symmetric grid is the same.
fn train(case: &Case) -> Result<Checks> {
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let steps: usize = case.argument("steps")?;
    let learning_rate: f64 = case.argument("sgd_lr")?;
    let model = RefModel::build(case.model()?, &device)?
        .load(|_, name| case.tensors.get(&format!("step0/param/{name}")).cloned())?;
    let layer = model.layers().keys().next().cloned().unwrap_or_default();
    let mut batches = Vec::new();
    for step in 0..steps {
        let x = Activation::from_array(case.array(&format!("step{step}/x"))?, &device)?;
        batches.push((x, case.array(&format!("step{step}/upstream"))?.clone()));
    }
    let outputs = Arc::new(Mutex::new(Vec::new()));
    let sink = outputs.clone();
    let evaluator = drive::evaluator(steps, learning_rate, move |model: &RefModel, step| {
        let (x, upstream) = &batches[*step];
        let out = model.forward(x.clone());
        sink.lock()
            .expect("no step panics while it holds the lock")
            .push(out.array());
        out.weighted_sum(upstream)
            .expect("the upstream has its shape")
    });
    let rules = config::translate(&case.file.config_list, &model, DefaultBlock::Other)?;
    let chain = Compressor::from_model(model, evaluator);
    let options = LsqConfig::new().with_init(LsqInit::Constant(0.01));
    let mut chain =
        LsqQuantizer::from_compressor(chain, &rules, options).map_err(|error| case.error(error))?;
    let seen = Arc::new(Mutex::new(IndexMap::new()));
    if let Some(algorithm) = chain.chain().pop() {
        chain.chain().push(Spy {
            algorithm,
            seen: seen.clone(),
        });
    }
    let compare_parameters = |checks: &mut Checks, model: &RefModel, prefix: &str| {
        let parameters = model.parameters();
        for (name, _) in case.below(prefix) {
            let found = &parameters[&format!("{layer}.{name}")];
            checks.array(case, &format!("{prefix}{name}"), found);
        }
    };
    let compare_learned = |checks: &mut Checks, part: usize, prefix: &str| {
        let seen = seen.lock().expect("no step panics while it holds the lock");
        for (target, _) in case.below(prefix) {
            let name = format!("{layer}.{target}.scale");
            match seen.get(&name) {
                Some(values) => {
                    let values: &[Vec<f32>; 2] = values;
                    let found = Array::float([values[part].len()], values[part].clone());
                    checks.array(case, &format!("{prefix}{target}"), &found);
                }
                None => checks.fail(format!("{prefix}{target}: nothing was learned")),
            }
        }
    };
    for step in 0..steps {
        compare_parameters(&mut checks, chain.model(), &format!("step{step}/param/"));
        chain
            .advance(&Budget::steps(steps), Some(step + 1))
            .map_err(|error| case.error(format!("step {step}: {error}")))?;
        let out = outputs
            .lock()
            .expect("no step panics while it holds the lock")
            .pop();
        match out {
            Some(out) => checks.array(case, &format!("step{step}/out"), &out),
            None => checks.fail(format!("step {step} did not run")),
        }
        compare_learned(&mut checks, 0, &format!("step{step}/scale/"));
        compare_learned(&mut checks, 1, &format!("step{step}/grad_scale/"));
        // The chain itself tells the magnitude.
        let calibration = chain.calibration().map_err(|error| case.error(error))?;
        let next = match step + 1 < steps {
            true => format!("step{}/scale/", step + 1),
            false => "final/scale/".to_owned(),
        };
        for (target, expected) in case.below(&next) {
            let id = targets::id(chain.model(), &layer, target)?;
            let scale = calibration.get(&id).and_then(|entry| entry.scale.clone());
            let found = scale.map_or(f64::NAN, |scale| f64::from(scale[0]));
            let expected = f64::from(expected.scalar()?.abs());
            checks.number(&format!("magnitude of {next}{target}"), found, expected);
        }
    }
    compare_parameters(&mut checks, chain.model(), "final/param/");
    if let Some(algorithm) = chain.chain().pop() {
        let mut seen = seen.lock().expect("no step panics while it holds the lock");
        for learnable in algorithm.learnables() {
            let values = learnable.values().map_err(|error| case.error(error))?;
            seen.insert(learnable.name().to_owned(), [values, Vec::new()]);
        }
    }
    compare_learned(&mut checks, 0, "final/scale/");
    Ok(checks)
}

/// What is trained and its gradients, as the algorithm has them after the backward pass.
struct Spy {
    algorithm: Box<dyn Algorithm<RefModel, Step>>,
    seen: Arc<Mutex<IndexMap<String, [Vec<f32>; 2]>>>,
}

impl Algorithm<RefModel, Step> for Spy {
    fn name(&self) -> &'static str {
        self.algorithm.name()
    }

    fn mode(&self) -> Mode {
        self.algorithm.mode()
    }

    fn check(&self, total_steps: usize) -> std::result::Result<(), BoxError> {
        self.algorithm.check(total_steps)
    }

    fn observe(&mut self, run: Run<'_, RefModel>) -> std::result::Result<(), BoxError> {
        self.algorithm.observe(run)
    }

    fn gradients(
        &mut self,
        gradients: &GradientsParams,
        run: Run<'_, RefModel>,
    ) -> std::result::Result<(), BoxError> {
        let mut seen = self.seen.lock().map_err(|error| error.to_string())?;
        for learnable in self.algorithm.learnables() {
            let gradient = learnable.gradient().map(Array::from_tensor);
            let gradient = gradient.map(|array| array.values).unwrap_or_default();
            seen.insert(learnable.name().to_owned(), [learnable.values()?, gradient]);
        }
        self.algorithm.gradients(gradients, run)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.algorithm.learnables()
    }

    fn after_step(&mut self, run: Run<'_, RefModel>) -> std::result::Result<(), BoxError> {
        self.algorithm.after_step(run)
    }

    fn finish(&mut self, run: Run<'_, RefModel>) -> std::result::Result<(), BoxError> {
        self.algorithm.finish(run)
    }

    fn state(&self) -> std::result::Result<AlgorithmState, BoxError> {
        self.algorithm.state()
    }
}
