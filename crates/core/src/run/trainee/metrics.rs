//! Metrics of the compression, for Burn's `Learner`.

use std::sync::Arc;

use burn::tensor::TensorReadError;
use burn::train::metric::state::{FormatOptions, NumericMetricState};
use burn::train::metric::{
    Metric, MetricAttributes, MetricMetadata, MetricName, Numeric, NumericAttributes, NumericEntry,
    SerializedEntry,
};

/// A metric with one number a step, and its input.
macro_rules! metric {
    (
        $(#[$metric_doc:meta])* $metric:ident($name:literal, $unit:literal, $description:literal),
        $(#[$input_doc:meta])* $input:ident, times $factor:literal, higher is better: $higher:literal
    ) => {
        $(#[$input_doc])*
        #[derive(Clone, Copy, Debug, PartialEq)]
        pub struct $input(f64);

        impl $input {
            /// The input with this value.
            pub fn new(value: f64) -> Self {
                Self(value)
            }
        }

        $(#[$metric_doc])*
        #[derive(Clone)]
        pub struct $metric {
            name: MetricName,
            state: NumericMetricState,
        }

        impl $metric {
            /// The metric before the first step.
            pub fn new() -> Self {
                Self {
                    name: Arc::new($name.to_string()),
                    state: NumericMetricState::new(),
                }
            }

            fn format(&self) -> FormatOptions {
                FormatOptions::new(self.name()).unit($unit).precision(2)
            }
        }

        impl Default for $metric {
            fn default() -> Self {
                Self::new()
            }
        }

        impl Metric for $metric {
            type Input = $input;

            fn name(&self) -> MetricName {
                self.name.clone()
            }

            fn description(&self) -> Option<String> {
                Some($description.to_string())
            }

            fn attributes(&self) -> MetricAttributes {
                NumericAttributes {
                    unit: Some($unit.to_string()),
                    higher_is_better: $higher,
                }
                .into()
            }

            fn update(
                &mut self,
                item: &$input,
                _metadata: &MetricMetadata,
            ) -> Result<SerializedEntry, TensorReadError> {
                self.state.update($factor * item.0, 1);
                Ok(self.state.compute_update(self.format()))
            }

            fn compute(&mut self) -> Result<SerializedEntry, TensorReadError> {
                Ok(self.state.compute_final(self.format()))
            }

            fn clear(&mut self) {
                self.state.reset();
            }
        }

        impl Numeric for $metric {
            fn value(&self) -> Option<NumericEntry> {
                Some(self.state.current_value())
            }

            fn running_value(&self) -> Option<NumericEntry> {
                Some(self.state.running_value())
            }

            fn final_value(&self) -> NumericEntry {
                self.state.final_value()
            }
        }
    };
}

metric!(
    /// Sparsity of the masked parameters, in percent; of an epoch the mean over its batches.
    ///
    /// In the validation split it is that of the model which is validated.
    SparsityMetric("Sparsity", "%", "Removed elements of the masked parameters"),
    /// Fraction of the masked parameters' elements that is removed.
    SparsityInput, times 100.0, higher is better: true
);

metric!(
    /// Mean number of bits of the model's parameters; of an epoch the mean over its batches.
    ///
    /// What is counted stands at [`StepState::bits`](super::StepState::bits).
    BitsMetric("Bits", "bits", "Mean bits of a parameter"),
    /// Mean number of bits of the parameters.
    BitsInput, times 1.0, higher is better: false
);
