//! The common part of the estimators with a histogram.

use burn::tensor::{Tensor, TensorData};
use burn_compress_core::{FlatTensor, Grid, HostTensor, QuantDtype, QuantScheme};
use parking_lot::Mutex;
use std::fmt;

use super::estimator::{RangeEstimator, Ranges};
use super::histogram::Histogram;
use super::min_max::widen;
use crate::qparams::{self, host};
use crate::{QuantizationError, precision};

/// Search for the range of a block in its histogram.
pub trait ClipSearch: fmt::Debug + Send + Sync {
    /// Range within the extremes of the block.
    ///
    /// `extremes` are the smallest and largest value, widened to hold zero. A symmetric scheme spans
    /// the larger of both magnitudes that are returned.
    fn range(
        &self,
        histogram: &Histogram,
        extremes: (f32, f32),
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> (f32, f32);

    /// The number of values other than zero that the search needs; a block with fewer keeps its
    /// extremes.
    fn fewest(&self) -> u64 {
        0
    }
}

/// Keeps a histogram of each block and the extremes of everything that was seen, and lets a
/// [`ClipSearch`] choose the range.
///
/// The values are read back to the host at each observation, which on an accelerator waits for the
/// computation. A parameter has the histogram of its
/// present values, inputs and outputs that of all values since the beginning.
#[derive(Debug)]
pub struct HistogramEstimator<S> {
    search: S,
    latest: bool,
    histograms: Mutex<Vec<Histogram>>,
}

impl<S: ClipSearch> HistogramEstimator<S> {
    /// An estimator without values. With `latest`, each batch replaces the one before.
    pub fn new(search: S, latest: bool) -> Self {
        Self {
            search,
            latest,
            histograms: Mutex::default(),
        }
    }

    /// Whether there are too few values to search.
    fn is_poor(&self, histogram: &Histogram) -> bool {
        occupied(histogram) < self.search.fewest()
    }
}

/// The number of values other than zero.
fn occupied(histogram: &Histogram) -> u64 {
    histogram.total() - histogram.zeros()
}

impl<S: ClipSearch> RangeEstimator for HistogramEstimator<S> {
    fn track(
        &self,
        values: &FlatTensor,
        grid: &Grid,
        batch: Ranges,
        tracked: Option<Ranges>,
    ) -> Result<Ranges, QuantizationError> {
        qparams::check_finite(batch.minimum.clone(), batch.maximum.clone())?;
        let host = host(values.values.clone())?;
        let mut histograms = self.histograms.lock();
        if tracked.is_none() || self.latest {
            histograms.clear();
        }
        histograms.resize_with(grid.len(), Histogram::new);
        if let [histogram] = &mut histograms[..] {
            histogram.add(&host);
        } else {
            let mut blocks = vec![Vec::new(); grid.len()];
            let block_of = grid.block_of_each_element(&values.shape);
            for (value, block) in host.into_iter().zip(block_of) {
                blocks[block as usize].push(value);
            }
            for (histogram, values) in histograms.iter_mut().zip(&blocks) {
                histogram.add(values);
            }
        }
        Ok(widen(batch, tracked.filter(|_| !self.latest)))
    }

    fn choose(
        &self,
        tracked: Ranges,
        dtype: QuantDtype,
        scheme: QuantScheme,
    ) -> Result<Ranges, QuantizationError> {
        let device = tracked.minimum.device();
        let mut maximum = host(Tensor::cat(vec![tracked.minimum, tracked.maximum], 0))?;
        let minimum = maximum.drain(..maximum.len() / 2).collect::<Vec<f32>>();
        let histograms = self.histograms.lock();
        if histograms.len() != minimum.len() {
            return Err(QuantizationError::State(format!(
                "{} histograms for {} blocks",
                histograms.len(),
                minimum.len()
            )));
        }
        let chosen = histograms.iter().zip(minimum.into_iter().zip(maximum));
        let (minimum, maximum): (Vec<f32>, Vec<f32>) = chosen
            .map(|(histogram, (low, high))| {
                let extremes = (low.min(0.0), high.max(0.0));
                match self.is_poor(histogram) {
                    true => extremes,
                    false => self.search.range(histogram, extremes, dtype, scheme),
                }
            })
            .unzip();
        let load = |values: Vec<f32>| {
            precision::single(Tensor::from_data(TensorData::from(&values[..]), &device))
        };
        Ok(Ranges {
            minimum: load(minimum),
            maximum: load(maximum),
        })
    }

    fn warning(&self) -> Option<String> {
        let histograms = self.histograms.lock();
        let poor = histograms.iter().filter(|one| self.is_poor(one));
        // Zeros alone lose nothing.
        let counts: Vec<u64> = poor.map(occupied).filter(|&count| count > 0).collect();
        let least = counts.iter().min()?;
        Some(format!(
            "{} of {} blocks keep the range of their extremes, as the observer needs {} values \
             other than zero and one of them has {least}: calibrate on more batches, use a \
             granularity with larger blocks, or the observer `mse` or `min_max`",
            counts.len(),
            histograms.len(),
            self.search.fewest(),
        ))
    }

    fn state(&self) -> Option<HostTensor> {
        let histograms = self.histograms.lock();
        let values: Vec<f32> = histograms.iter().flat_map(Histogram::to_numbers).collect();
        Some(HostTensor {
            shape: vec![values.len()],
            values,
        })
    }

    fn load_state(&self, state: Option<&HostTensor>) -> Result<(), QuantizationError> {
        let damaged = |reason: &str| QuantizationError::State(reason.to_string());
        let state = state.ok_or_else(|| damaged("the histograms are missing"))?;
        let mut numbers = state.values.iter().copied().peekable();
        let mut histograms = Vec::new();
        while numbers.peek().is_some() {
            let histogram = Histogram::from_numbers(&mut numbers);
            histograms.push(histogram.ok_or_else(|| damaged("the histograms are damaged"))?);
        }
        *self.histograms.lock() = histograms;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::Device;
    use burn_compress_core::{Observer, Target};

    use super::*;
    use crate::targets::observer_testing::{Follow, observed};
    use crate::{Granularity, ObserverKind, QuantizationSettings, TargetObserver};

    #[test]
    fn channels_are_told_apart_and_batches_add_up() {
        let mut follow = Follow::new(ObserverKind::Percentile(100.0), Granularity::PerChannel);
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        follow.see([[0.5, -3.5], [2.0, 1.0]]);
        assert_eq!(follow.tracked(), (vec![0.5, -3.5], vec![7.0, 1.0]));
        follow.compute_qparams();
        assert_eq!(observed(&follow.state.scale), [1.0, 0.5]);
    }

    #[test]
    fn a_parameter_has_the_histogram_of_its_present_values() {
        let settings = QuantizationSettings {
            observer: Some(ObserverKind::Mse),
            ..Default::default()
        };
        let weight = Target::param("weight");
        let observer =
            TargetObserver::new("Linear", weight, &settings, ObserverKind::MinMax).unwrap();
        let mut state = Follow::new(ObserverKind::Mse, Granularity::Default).state;
        for value in [100.0, 1.0] {
            let values = Tensor::<2>::from_floats([[value, -value]], &Device::flex());
            observer
                .observe(&FlatTensor::new(values), &mut state)
                .unwrap();
        }
        assert_eq!(observed(&state.minimum), [-1.0]);
        observer.compute_qparams(&mut state).unwrap();
        assert!(observed(&state.scale)[0] <= 1.0 / 127.0);
    }

    #[test]
    fn a_restored_observer_goes_on() {
        let settings = QuantizationSettings {
            granularity: Some(Granularity::PerChannel),
            observer: Some(ObserverKind::Histogram),
            ..Default::default()
        };
        let mut whole = Follow::with(ObserverKind::MinMax, &settings);
        let mut first = Follow::with(ObserverKind::MinMax, &settings);
        let batch = |scale: f32| {
            let row = |at: usize| std::array::from_fn(|c| scale * ((at * 7 + c) as f32).sin());
            std::array::from_fn::<[f32; 3], 160, _>(row)
        };
        whole.see(batch(1.0));
        first.see(batch(1.0));
        let second = Follow::with(ObserverKind::MinMax, &settings);
        let saved = first.observer.state();
        second.observer.load_state(saved.as_ref()).unwrap();
        let mut second = Follow {
            state: first.state,
            ..second
        };
        whole.see(batch(3.0));
        second.see(batch(3.0));
        assert_eq!(whole.observer.state(), second.observer.state());
        whole.compute_qparams();
        second.compute_qparams();
        assert_eq!(observed(&whole.state.scale), observed(&second.state.scale));
    }

    #[test]
    fn poor_channels_keep_their_extremes_and_are_counted() {
        // 200 exponential values in the first channel, 40 in the second, the largest of each far
        // out; the third is zero.
        let rows: [[f32; 3]; 200] = std::array::from_fn(|row| {
            let value = -(1.0 - (row as f32 + 0.5) / 200.0).ln();
            match row {
                199 => [100.0, 100.0, 0.0],
                row if row % 5 == 0 && row < 195 => [value, value, 0.0],
                _ => [value, 0.0, 0.0],
            }
        });
        let observe = |kind| {
            let mut follow = Follow::new(kind, Granularity::PerChannel);
            follow.see(rows);
            follow.compute_qparams();
            follow
        };
        let searched = observe(ObserverKind::Histogram);
        let extremes = observe(ObserverKind::MinMax);
        let (found, wide) = (
            observed(&searched.state.scale),
            observed(&extremes.state.scale),
        );
        assert!(found[0] < 0.5 * wide[0], "{found:?} {wide:?}");
        assert_eq!(found[1..], wide[1..]);
        let warning = searched.observer.warning().unwrap();
        for part in ["1 of 3 blocks", "needs 150 values", "has 40", "`min_max`"] {
            assert!(warning.contains(part), "{warning}");
        }
        assert_eq!(extremes.observer.warning(), None);
        assert_eq!(observe(ObserverKind::Mse).observer.warning(), None);
    }

    #[test]
    fn damaged_states_are_errors() {
        let follow = Follow::new(ObserverKind::Mse, Granularity::Default);
        let error = follow.observer.load_state(None).unwrap_err();
        assert!(matches!(error, QuantizationError::State(_)), "{error}");
        for values in [
            vec![0.0, 0.0, 0.0, 2.0, 1.0, 0.0, 1.0],
            vec![0.0, 0.0, 0.0, 1.0, 5000.0, 0.0, 1.0],
        ] {
            let shape = vec![values.len()];
            let state = HostTensor { values, shape };
            assert!(follow.observer.load_state(Some(&state)).is_err());
        }
        let stateless = Follow::new(ObserverKind::MinMax, Granularity::Default);
        let state = HostTensor::default();
        assert!(stateless.observer.load_state(Some(&state)).is_err());
        assert_eq!(stateless.observer.state(), None);
    }

    #[test]
    fn values_that_are_not_finite_are_always_refused() {
        let Follow {
            observer,
            mut state,
        } = Follow::new(ObserverKind::Mse, Granularity::Default);
        let bad = Tensor::<2>::from_floats([[1.0, f32::INFINITY]], &Device::flex());
        let error = observer
            .with_check(false)
            .observe(&FlatTensor::new(bad), &mut state)
            .unwrap_err();
        assert!(error.contains("not finite"), "{error}");
    }
}
