//! Time of the forward pass of a small model beside that of the dense one.

use std::fmt;
use std::time::Instant;

use burn::module::Module;
use burn_compress_core::{DummyInput, Error, write_table};
use serde::{Deserialize, Serialize};

use crate::SpeedupError;

/// How often forward passes are timed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LatencyConfig {
    rounds: usize,
    warm_up: usize,
}

impl LatencyConfig {
    /// 31 rounds after 5 that are not counted.
    pub fn new() -> Self {
        Self {
            rounds: 31,
            warm_up: 5,
        }
    }

    /// Sets the number of rounds, each a forward pass of both models.
    pub fn with_rounds(mut self, rounds: usize) -> Self {
        self.rounds = rounds;
        self
    }

    /// Sets the number of rounds before, which are not counted: compilation of kernels, caches and
    /// pages fall into them.
    pub fn with_warm_up(mut self, rounds: usize) -> Self {
        self.warm_up = rounds;
        self
    }

    /// Times `dense` and `small`, see [`latency`].
    ///
    /// # Errors
    ///
    /// No round at all, and those of [`latency`].
    pub fn measure<M: Module>(
        &self,
        dense: &M,
        small: &M,
        dummy_input: &DummyInput<M>,
    ) -> Result<Latency, Error> {
        if self.rounds == 0 {
            let reason = "0 rounds tell no time: give `with_rounds` at least 1";
            return Err(unmeasured(reason))?;
        }
        let (dense, small) = (timed(dense, dummy_input), timed(small, dummy_input));
        for _ in 0..self.warm_up {
            dense()?;
            small()?;
        }
        let mut times = [Vec::new(), Vec::new()];
        for _ in 0..self.rounds {
            times[0].push(dense()?);
            times[1].push(small()?);
        }
        let [dense, small] = times.map(Quartiles::of);
        Ok(Latency {
            dense,
            small,
            rounds: self.rounds,
        })
    }
}

impl Default for LatencyConfig {
    fn default() -> Self {
        Self::new()
    }
}

/// Times the forward passes of two models on the dummy input, in 31 rounds after 5 that are not
/// counted; other numbers with [`LatencyConfig`].
///
/// Both models run in validation mode and in turns, so that what slows the machine down for a while
/// slows both. The time ends when the outputs have reached the host, inputs and outputs therefore
/// travel in it. On a machine that does other things besides, compare quartiles before medians.
///
/// # Errors
///
/// A dummy input whose forward pass has no output, so that no device is waited for.
///
/// # Panics
///
/// Where the forward pass of a model panics, on an input that does not fit it for example.
///
/// ```
/// use burn::nn::{Linear, LinearConfig};
/// use burn::prelude::*;
/// use burn_compress_core::DummyInput;
/// use burn_compress_speedup::latency;
///
/// #[derive(Module, Debug)]
/// struct Mlp {
///     first: Linear,
///     second: Linear,
/// }
///
/// let device = Device::flex();
/// let mlp = |hidden| Mlp {
///     first: LinearConfig::new(64, hidden).init(&device),
///     second: LinearConfig::new(hidden, 64).init(&device),
/// };
/// let x = Tensor::<2>::ones([16, 64], &device);
/// let dummy_input = DummyInput::new(x, |model: &Mlp, x| {
///     model.second.forward(model.first.forward(x))
/// });
/// let latency = latency(&mlp(512), &mlp(32), &dummy_input)?;
/// println!("{latency}");
/// assert!(latency.ratio() > 0.0);
/// # Ok::<(), burn_compress_core::Error>(())
/// ```
pub fn latency<M: Module>(
    dense: &M,
    small: &M,
    dummy_input: &DummyInput<M>,
) -> Result<Latency, Error> {
    LatencyConfig::new().measure(dense, small, dummy_input)
}

/// The forward pass, as a function that gives its time in seconds.
fn timed<'a, M: Module>(
    model: &M,
    dummy_input: &'a DummyInput<M>,
) -> impl Fn() -> Result<f64, SpeedupError> + use<'a, M> {
    let model = model.valid();
    let device = model.devices().first().cloned().unwrap_or_default();
    move || {
        let start = Instant::now();
        let outputs = dummy_input.run(&model, &device);
        let seconds = start.elapsed().as_secs_f64();
        match outputs.is_empty() {
            true => Err(unmeasured(
                "the forward pass of the dummy input has no output",
            )),
            false => Ok(seconds),
        }
    }
}

fn unmeasured(reason: &str) -> SpeedupError {
    SpeedupError::Latency {
        reason: reason.to_string(),
    }
}

/// Times of the forward passes of two models, in seconds.
///
/// Its `Display` is a small table.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Latency {
    /// Of the dense model.
    pub dense: Quartiles,
    /// Of the small model.
    pub small: Quartiles,
    /// Forward passes of each.
    pub rounds: usize,
}

impl Latency {
    /// The median time of the small model divided by that of the dense one; below 1 the small model
    /// is faster.
    pub fn ratio(&self) -> f64 {
        self.small.median / self.dense.median
    }
}

impl fmt::Display for Latency {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let head = ["", "lower quartile", "median", "upper quartile"].map(str::to_string);
        let row = |name: &str, times: Quartiles| {
            let times = [times.lower, times.median, times.upper].map(duration);
            std::iter::once(name.to_string()).chain(times).collect()
        };
        let rows = [
            head.to_vec(),
            row("dense", self.dense),
            row("small", self.small),
        ];
        write_table(f, &rows)?;
        writeln!(
            f,
            "small / dense {:.2} (medians of {} forward passes each)",
            self.ratio(),
            self.rounds
        )
    }
}

/// Seconds with a unit in which they have one to three digits before the point.
fn duration(seconds: f64) -> String {
    let (scale, unit) = match seconds {
        seconds if seconds >= 1.0 => (1.0, "s"),
        seconds if seconds >= 1e-3 => (1e3, "ms"),
        _ => (1e6, "us"),
    };
    format!("{:.2} {unit}", seconds * scale)
}

/// The median of several values and the quartiles around it.
///
/// Between two values they are interpolated: of n values in order, counted from 0, the quantile q is
/// at (n - 1) q.
#[derive(Clone, Copy, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quartiles {
    /// A quarter of the values is below.
    pub lower: f64,
    /// Half of the values is below.
    pub median: f64,
    /// A quarter of the values is above.
    pub upper: f64,
}

impl Quartiles {
    /// The quartiles of at least one value.
    fn of(mut values: Vec<f64>) -> Self {
        values.sort_unstable_by(f64::total_cmp);
        let quantile = |quantile: f64| {
            let at = (values.len() - 1) as f64 * quantile;
            let (low, high) = (values[at.floor() as usize], values[at.ceil() as usize]);
            low + (high - low) * at.fract()
        };
        Self {
            lower: quantile(0.25),
            median: quantile(0.5),
            upper: quantile(0.75),
        }
    }
}

#[cfg(test)]
mod tests {
    use burn::nn::{Linear, LinearConfig};
    use burn::tensor::{Device, Tensor};

    use super::*;

    #[test]
    fn quartiles_of_hand_sorted_values() {
        // In order 1, 2, 4, 8, 16: the quartiles are at 1, 2 and 3.
        let five = Quartiles::of(vec![16.0, 1.0, 8.0, 2.0, 4.0]);
        assert_eq!([five.lower, five.median, five.upper], [2.0, 4.0, 8.0]);
        // In order 1, 2, 4, 8: at 0.75, 1.5 and 2.25.
        let four = Quartiles::of(vec![8.0, 4.0, 2.0, 1.0]);
        assert_eq!([four.lower, four.median, four.upper], [1.75, 3.0, 5.0]);
        let one = Quartiles::of(vec![3.0]);
        assert_eq!([one.lower, one.median, one.upper], [3.0, 3.0, 3.0]);
    }

    #[test]
    fn table_and_json() {
        let quartiles = |median: f64| Quartiles {
            lower: median / 2.0,
            median,
            upper: 2.0 * median,
        };
        let latency = Latency {
            dense: quartiles(0.5),
            small: quartiles(0.0015),
            rounds: 7,
        };
        let expected = "       lower quartile  median     upper quartile\n\
                        dense  250.00 ms       500.00 ms  1.00 s\n\
                        small  750.00 us       1.50 ms    3.00 ms\n\
                        small / dense 0.00 (medians of 7 forward passes each)\n";
        assert_eq!(latency.to_string(), expected);
        let json = serde_json::to_string(&latency).unwrap();
        assert_eq!(serde_json::from_str::<Latency>(&json).unwrap(), latency);
    }

    fn linear(outputs: usize) -> Linear {
        LinearConfig::new(256, outputs).init(&Device::flex())
    }

    #[test]
    fn a_narrow_layer_takes_less_time() {
        let x = Tensor::<2>::ones([64, 256], &Device::flex());
        let dummy_input = DummyInput::new(x, |model: &Linear, x| model.forward(x));
        let latency = latency(&linear(2048), &linear(8), &dummy_input).unwrap();
        assert!(latency.ratio() > 0.0 && latency.ratio() < 1.0, "{latency}");
        assert!(latency.dense.lower <= latency.dense.median);
        assert_eq!(latency.rounds, 31);
    }

    #[test]
    fn what_tells_no_time_is_an_error() {
        let none = DummyInput::from_fn(|_: &Linear, _| Vec::<Tensor<1>>::new());
        let error = latency(&linear(2), &linear(2), &none).unwrap_err();
        assert!(error.to_string().contains("has no output"), "{error}");
        let config = LatencyConfig::new().with_rounds(0);
        let error = config.measure(&linear(2), &linear(2), &none).unwrap_err();
        assert!(error.to_string().contains("at least 1"), "{error}");
    }
}
