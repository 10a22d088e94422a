//! Training runs whose course the files prescribe.

use std::sync::Arc;

use burn::module::{Module, ModuleVisitor, Param};
use burn::optim::SgdConfig;
use burn::tensor::Tensor;
use burn_compress::Evaluator;
use indexmap::IndexMap;

use super::array::Array;
use super::case::{Case, Result};
use super::layout;
use super::model::RefModel;

/// The number of a step, which is all that a batch of these runs has to say.
pub type Step = usize;

/// An evaluator of `steps` batches, plain gradient descent and the given loss.
pub fn evaluator(
    steps: usize,
    learning_rate: f64,
    loss: impl Fn(&RefModel, &Step) -> Tensor<1> + Send + Sync + 'static,
) -> Evaluator<RefModel, Step> {
    Evaluator::new()
        .with_data(move |_epoch| (0..steps).collect::<Vec<Step>>())
        .with_optimizer(SgdConfig::new().init())
        .with_learning_rate(learning_rate)
        .with_loss(loss)
}

/// Parameter values or gradients of each step, by `LAYER.PARAMETER` in PyTorch's names and layout.
pub type Course = Arc<Vec<IndexMap<String, Array>>>;

/// Reads `step0/PART/..`, `step1/PART/..`, .. of `steps` steps.
///
/// # Errors
///
/// When a step has none.
pub fn course(case: &Case, part: &str, steps: usize) -> Result<Course> {
    let step = |step: usize| {
        let found: IndexMap<String, Array> = case
            .below(&format!("step{step}/{part}/"))
            .into_iter()
            .map(|(name, array)| (name.to_owned(), array.clone()))
            .collect();
        match found.is_empty() {
            true => Err(case.error(format!("no tensor `step{step}/{part}/..`"))),
            false => Ok(found),
        }
    };
    Ok(Arc::new((0..steps).map(step).collect::<Result<_>>()?))
}

/// `sum(parameter * gradient)` over the named parameters: the loss whose gradients with respect to
/// the raw parameters are exactly the given ones.
///
/// # Panics
///
/// When a gradient has another shape than its parameter.
pub fn loss_with_gradients(model: &RefModel, gradients: &IndexMap<String, Array>) -> Tensor<1> {
    let mut sum = DotProduct {
        path: Vec::new(),
        model,
        gradients,
        loss: None,
    };
    model.visit(&mut sum);
    sum.loss
        .expect("the gradients name at least one parameter of the model")
}

struct DotProduct<'a> {
    path: Vec<String>,
    model: &'a RefModel,
    gradients: &'a IndexMap<String, Array>,
    loss: Option<Tensor<1>>,
}

impl ModuleVisitor for DotProduct<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let [layer, name] = self.path.as_slice() else {
            return;
        };
        let kind = self.model.kind(layer);
        let torch = layout::torch_target(kind, name);
        let Some(gradient) = self.gradients.get(&format!("{layer}.{torch}")) else {
            return;
        };
        let value = param.base();
        let gradient = layout::convert(kind, torch, gradient)
            .tensor::<D>(&value.device())
            .expect("a gradient has the rank of its parameter");
        let term = (value * gradient).sum();
        self.loss = Some(match self.loss.take() {
            Some(loss) => loss + term,
            None => term,
        });
    }
}
