//! Family G: distillation losses on given hidden states.
//!
//! The hidden states are all that a case tells of the two models, so the student and the teacher
//! are made of layers that return them. One step of gradient descent with rate 1 leaves the
//! difference of the states before and after as their gradient. The linear layers of an adaptive
//! distiller start as the case says.

use std::sync::Arc;

use burn::module::Module;
use burn::tensor::{Device, Tensor};
use burn_compress::config::ConfigList;
use burn_compress::distillation::DistillationSettings;
use burn_compress::layer::layers;
use burn_compress::{
    Algorithm, AlgorithmState, BoxError, Budget, FlatTensor, Learnable, Mode, Run,
};
use indexmap::IndexMap;

use crate::reference::activation::Activation;
use crate::reference::adapter::{self, Chain};
use crate::reference::array::Array;
use crate::reference::case::{Case, Result};
use crate::reference::check::Checks;
use crate::reference::config::{self, DefaultBlock};
use crate::reference::drive;
use crate::reference::layer::RefLayer;
use crate::reference::model::RefModel;

/// Runs a case.
///
/// # Errors
///
/// When the case cannot be run, or names a distiller that the library does not have.
pub fn run(case: &Case) -> Result<Checks> {
    let adaptive = match case.file.algorithm.as_str() {
        "DynamicLayerwiseDistiller" => false,
        "Adaptive1dLayerwiseDistiller" => true,
        other => return case.not_covered(format!("{other} is not part of the library yet")),
    };
    let device = Device::flex().autodiff();
    let mut checks = Checks::new(case);
    let student = states(case, "student/", &device)?;
    let teacher = states(case, "teacher/", &device)?.valid();
    if !adaptive {
        compare_links(case, &mut checks, &student)?;
    }

    let origin: f64 = case.expected("origin_loss")?;
    let origin_lambda: f64 = case.argument("origin_loss_lambda")?;
    let evaluator = drive::evaluator(1, 1.0, move |model, _| {
        run_all(model);
        Tensor::<1>::from_floats([origin as f32], &device)
    });
    let chain = Chain::from_model(student, evaluator);
    let predict = |teacher: &RefModel, _: &drive::Step| run_all(teacher);
    let rules = &case.file.config_list;
    let (mut chain, projections) = match adaptive {
        false => {
            let chain = adapter::distil(case, chain, rules, &teacher, predict, origin_lambda)?;
            (chain, Vec::new())
        }
        true => {
            let chain = adapter::adapt(case, chain, rules, &teacher, predict, origin_lambda)?;
            projected(case, chain)?
        }
    };
    let before = chain.model().parameters();
    chain
        .advance(&Budget::steps(1), None)
        .map_err(|error| case.error(error))?;
    let after = chain.model().parameters();
    for (name, _) in case.below("student/") {
        let (before, after) = (
            &before[&format!("{name}.value")],
            &after[&format!("{name}.value")],
        );
        let gradient = before
            .values
            .iter()
            .zip(&after.values)
            .map(|(before, after)| before - after);
        let gradient = Array::float(before.shape.clone(), gradient.collect());
        checks.array(case, &format!("grad_student/{name}"), &gradient);
    }
    for (name, learnable) in &projections {
        let before = case.array(&format!("linear/{name}"))?.reversed();
        let after = learnable.values().map_err(|error| case.error(error))?;
        let gradient = before.values.iter().zip(&after).map(|(b, a)| b - a);
        let gradient = Array::float(before.shape.clone(), gradient.collect()).reversed();
        checks.array(case, &format!("grad_linear/{name}"), &gradient);
    }
    let compressed = chain.finish().map_err(|error| case.error(error))?;
    let total = compressed.history().steps[0].loss;
    checks.number("total loss", total, case.expected("total_loss")?);
    checks.array(case, "total_loss", &Array::float([1], vec![total as f32]));
    let distilled = total - origin_lambda * origin;
    checks.number(
        "distillation loss",
        distilled,
        case.expected("distill_loss")?,
    );
    Ok(checks)
}

/// A model with one layer for each given hidden state.
fn states(case: &Case, prefix: &str, device: &Device) -> Result<RefModel> {
    let mut layers = IndexMap::new();
    for (name, array) in case.below(prefix) {
        layers.insert(name.to_owned(), RefLayer::state(array, device)?);
    }
    Ok(RefModel::from_layers(layers))
}

/// Runs every layer of a model of hidden states.
fn run_all(model: &RefModel) -> Vec<Activation> {
    model.layers().values().map(RefLayer::output).collect()
}

/// The given linear layers of the newest compressor, by their names in the case.
type Projections = Vec<(String, Arc<Learnable>)>;

/// Gives the newest compressor of a chain the linear layers of a case to start with.
fn projected(case: &Case, mut chain: Chain) -> Result<(Chain, Projections)> {
    let Some(mut distiller) = chain.chain().pop() else {
        return Err(case.error("the chain is empty"));
    };
    let weights = case.below("linear/").into_iter();
    let weights = weights.filter_map(|(name, array)| Some((name.strip_suffix(".weight")?, array)));
    let mut sizes = AlgorithmState::default();
    for (layer, weight) in weights {
        // The weight is `[student, teacher]` here, `[teacher, student]` in the case.
        let dimensions = [("weight/0", 1), ("weight/1", 0), ("bias/0", 0)];
        for (dimension, at) in dimensions {
            let key = format!("{layer}._output_0/0/{dimension}");
            sizes.values.insert(key, weight.shape[at] as f64);
        }
    }
    distiller
        .load_state(&sizes)
        .map_err(|error| case.error(error))?;
    let mut projections = Projections::new();
    for learnable in distiller.learnables() {
        let (layer, part) = match learnable.name().split_once("._output_0/0/") {
            Some(parts) => parts,
            None => return Err(case.error(format!("`{}` is no projection", learnable.name()))),
        };
        let name = format!("{layer}.{part}");
        let start = case.array(&format!("linear/{name}"))?.reversed();
        learnable
            .set_values(start.values)
            .map_err(|error| case.error(error))?;
        projections.push((name, learnable));
    }
    chain.chain().push(Started(distiller));
    Ok((chain, projections))
}

/// A distiller with given projections.
struct Started(Box<dyn Algorithm<RefModel, drive::Step>>);

impl Algorithm<RefModel, drive::Step> for Started {
    fn name(&self) -> &'static str {
        self.0.name()
    }

    fn mode(&self) -> Mode {
        self.0.mode()
    }

    fn loss(
        &mut self,
        loss: Tensor<1>,
        batch: &drive::Step,
        run: Run<'_, RefModel>,
    ) -> std::result::Result<Tensor<1>, BoxError> {
        self.0.loss(loss, batch, run)
    }

    fn learnables(&self) -> Vec<Arc<Learnable>> {
        self.0.learnables()
    }
}

/// The weighted loss of every link of a student layer, and which of them is the smallest.
fn compare_links(case: &Case, checks: &mut Checks, student: &RefModel) -> Result<()> {
    let device = Device::flex();
    let expected: IndexMap<String, IndexMap<String, f64>> =
        case.expected("weighted_loss_per_link")?;
    let chosen: IndexMap<String, String> = case.expected("chosen_link")?;
    let rules = &case.file.config_list;
    let config: ConfigList<DistillationSettings> =
        config::translate(rules, student, DefaultBlock::Other)?;
    let selected = config
        .select(&layers(student))
        .map_err(|error| case.error(error))?;
    let state = |name: String| -> Result<FlatTensor> {
        let array = case.array(&name)?;
        let values = Array::float([array.values.len()], array.values.clone()).tensor(&device)?;
        Ok(FlatTensor {
            values,
            shape: array.shape.clone(),
        })
    };
    for target in &selected {
        let path = target.layer.path.as_str();
        let given = state(format!("student/{path}"))?;
        let mut smallest: Option<(&str, f64)> = None;
        for link in target.settings.links(path) {
            let taught = state(format!("teacher/{link}"))?;
            let loss = target
                .settings
                .loss()
                .between((path, &given), (link, &taught))
                .map_err(|error| case.error(error))?;
            let loss = f64::from(Array::from_tensor(loss).scalar()?) * target.settings.lambda();
            let name = format!("weighted loss of {path} and {link}");
            match expected.get(path).and_then(|links| links.get(link)) {
                Some(expected) => checks.number(&name, loss, *expected),
                None => checks.fail(format!("{name}: the case does not expect this link")),
            }
            if smallest.is_none_or(|(_, least)| loss < least) {
                smallest = Some((link, loss));
            }
        }
        let got = smallest.map(|(link, _)| link.to_owned());
        checks.equal(
            &format!("chosen link of {path}"),
            got,
            chosen.get(path).cloned(),
        );
    }
    Ok(())
}
