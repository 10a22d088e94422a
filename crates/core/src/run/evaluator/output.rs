//! The output of a batch, whatever its type.

use std::any::{Any, type_name};
use std::fmt;
use std::sync::Arc;

use burn::module::Module;

use super::Evaluator;
use crate::Error;
use crate::run::trainee::output::StepOutput;

pub(crate) type Output<M, I, O> = Arc<dyn Fn(&M, &I) -> O + Send + Sync>;

/// An [`Output`] of a type that the evaluator does not name.
#[derive(Clone)]
pub(super) struct AnyOutput {
    output: Arc<dyn Any + Send + Sync>,
    /// Name of the type of an output.
    name: &'static str,
}

impl fmt::Debug for AnyOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name)
    }
}

impl AnyOutput {
    pub fn new<M: 'static, I: 'static, O: 'static>(output: Output<M, I, O>) -> Self {
        Self {
            output: Arc::new(output),
            name: type_name::<O>(),
        }
    }

    /// The output as an `O`.
    ///
    /// # Errors
    ///
    /// It is of another type.
    pub fn get<M: 'static, I: 'static, O: 'static>(&self) -> Result<Output<M, I, O>, Error> {
        let output: Option<&Output<M, I, O>> = self.output.downcast_ref();
        output.cloned().ok_or(Error::OutputType {
            found: self.name,
            asked: type_name::<O>(),
        })
    }
}

impl<M: Module + 'static, I: 'static> Evaluator<M, I> {
    /// Sets the output of a batch, and its loss with it: in place of [`with_loss`](Self::with_loss)
    /// where Burn's `Learner` is to have metrics of more than the loss.
    ///
    /// [`into_trainee_with_output`](crate::Compressor::into_trainee_with_output) hands the output
    /// out; everything else uses its loss alone.
    ///
    /// ```
    /// use burn::nn::Linear;
    /// use burn::nn::loss::CrossEntropyLossConfig;
    /// use burn::tensor::{Int, Tensor};
    /// use burn::train::ClassificationOutput;
    /// use burn_compress_core::Evaluator;
    ///
    /// type Batch = (Tensor<2>, Tensor<1, Int>);
    ///
    /// let evaluator = Evaluator::new().with_output(|model: &Linear, (rows, classes): &Batch| {
    ///     let logits = model.forward(rows.clone());
    ///     let loss = CrossEntropyLossConfig::new().init(&logits.device());
    ///     let loss = loss.forward(logits.clone(), classes.clone());
    ///     ClassificationOutput::new(loss, logits, classes.clone())
    /// });
    /// ```
    pub fn with_output<O: StepOutput>(
        mut self,
        output: impl Fn(&M, &I) -> O + Send + Sync + 'static,
    ) -> Self {
        let output: Output<M, I, O> = Arc::new(output);
        self.output = Some(AnyOutput::new(output.clone()));
        self.loss = Some(Arc::new(move |model: &M, batch: &I| {
            output(model, batch).loss()
        }));
        self
    }

    /// The output of a batch, as an `O`.
    ///
    /// # Errors
    ///
    /// No output, or one of another type.
    pub(crate) fn output<O: 'static>(&self) -> Result<Output<M, I, O>, Error> {
        let output = self.output.as_ref().ok_or(Error::MissingEvaluator {
            algorithm: "a trainee with output",
            missing: "the output of a batch",
            builder: "with_output",
        })?;
        output.get()
    }
}
