//! Observer of one target.

use std::sync::Arc;

use burn_compress_core::{
    FlatTensor, HostTensor, Observer, QuantDtype, QuantScheme, Quantization, Target,
};

use crate::qparams::{self, QParams};
use crate::range_rule::{self, RangeRule};
use crate::ranges::{ObserverKind, RangeEstimator, Ranges};
use crate::{Granularity, QuantizationError, QuantizationSettings, blocks, granularity, precision};

/// Observer of the values of one target, which computes its scale and zero point.
///
/// The range is tracked from the first observation on; scale and zero point are computed only while
/// the quantization is enabled, so that a run can begin in full precision with the ranges warming
/// up.
#[derive(Debug)]
pub struct TargetObserver {
    kind: String,
    target: Target,
    granularity: Granularity,
    dtype: QuantDtype,
    scheme: QuantScheme,
    check: bool,
    estimator: Box<dyn RangeEstimator>,
    /// In the place of the standard one.
    rule: Option<Arc<dyn RangeRule>>,
}

impl TargetObserver {
    /// An observer of `target` in a layer of type `kind` (`Conv2d`), the one of the settings or
    /// else `default`.
    ///
    /// # Errors
    ///
    /// Settings that do not fit each other.
    pub fn new(
        kind: impl Into<String>,
        target: Target,
        settings: &QuantizationSettings,
        default: ObserverKind,
    ) -> Result<Self, QuantizationError> {
        settings.check()?;
        let observer = settings.observer.unwrap_or(default);
        Ok(Self {
            estimator: observer.estimator(target.is_param()),
            rule: None,
            kind: kind.into(),
            target,
            granularity: settings.granularity(),
            dtype: settings.dtype(),
            scheme: settings.scheme(),
            check: true,
        })
    }

    /// Computes scale and zero point by `rule`, and ranges by its estimator unless the settings
    /// name an observer.
    pub(crate) fn with_rule(
        mut self,
        settings: &QuantizationSettings,
        rule: Arc<dyn RangeRule>,
    ) -> Self {
        if let (None, Some(estimator)) = (settings.observer, rule.estimator(&self.target)) {
            self.estimator = estimator;
        }
        self.rule = Some(rule);
        self
    }

    /// Sets whether every observation checks that the range is finite; true by default.
    ///
    /// The check needs one pair of numbers per block on the host. A training run reads those of all
    /// targets together with its loss, see [`reads`](burn_compress_core::reads); elsewhere they are
    /// read at once. Without the check a NaN in the data ends in a NaN in the loss. Observers with
    /// a histogram read the values back and check them in any case.
    pub fn with_check(mut self, check: bool) -> Self {
        self.check = check;
        self
    }

    /// Updates range, scale and zero point from `values`.
    ///
    /// # Errors
    ///
    /// A granularity that does not fit the shape or gives other blocks than before, and values that
    /// are not finite; the quantization is unchanged then. In a training run, values that are not
    /// finite are an error of the run, which brings the quantization back.
    pub fn update(
        &self,
        values: &FlatTensor,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let shape = &values.shape;
        let grid = granularity::grid(&self.granularity, &self.kind, &self.target, shape)?;
        let (minimum, maximum) = blocks::range(values, &grid)?;
        if self.check {
            qparams::watch_finite(minimum.clone(), maximum.clone())?;
        }
        let old = tracked(quantization);
        if old.is_some() {
            blocks::check_same(&quantization.grid, &grid)?;
        }
        let batch = Ranges {
            minimum: precision::single(minimum),
            maximum: precision::single(maximum),
        };
        let ranges = self.estimator.track(values, &grid, batch, old)?;
        if quantization.enabled {
            self.derive(ranges.clone(), quantization)?;
        }
        quantization.minimum = Some(ranges.minimum);
        quantization.maximum = Some(ranges.maximum);
        quantization.grid = grid;
        Ok(())
    }

    /// Computes scale and zero point from the tracked range.
    ///
    /// # Errors
    ///
    /// [`QuantizationError::NothingObserved`], a rule that breaks its laws, and a device that
    /// failed to hand over its values.
    pub fn compute_qparams(
        &self,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let ranges = tracked(quantization).ok_or(QuantizationError::NothingObserved)?;
        self.derive(ranges, quantization)
    }

    fn derive(
        &self,
        tracked: Ranges,
        quantization: &mut Quantization,
    ) -> Result<(), QuantizationError> {
        let (dtype, scheme) = (self.dtype, self.scheme);
        let chosen = self.estimator.choose(tracked, dtype, scheme)?;
        let QParams { scale, zero_point } = match &self.rule {
            None => qparams::compute(chosen.minimum, chosen.maximum, dtype, scheme),
            Some(rule) => {
                let blocks = chosen.minimum.dims()[0];
                let qparams = rule.qparams(chosen, dtype, scheme);
                range_rule::check_laws(&qparams, blocks, rule.name(), dtype)?;
                qparams
            }
        };
        quantization.scale = Some(scale);
        quantization.zero_point = Some(zero_point);
        Ok(())
    }

    /// A defect of the range and its remedy, in words: too few values for a search.
    pub fn warning(&self) -> Option<String> {
        self.estimator.warning()
    }

    /// State that a resumed run needs beyond the quantization itself.
    pub fn state(&self) -> Option<HostTensor> {
        self.estimator.state()
    }

    /// Restores the result of [`state`](Self::state).
    ///
    /// # Errors
    ///
    /// [`QuantizationError::State`] for a state of another observer.
    pub fn load_state(&self, state: Option<&HostTensor>) -> Result<(), QuantizationError> {
        self.estimator.load_state(state)
    }
}

impl Observer for TargetObserver {
    fn observe(&self, values: &FlatTensor, quantization: &mut Quantization) -> Result<(), String> {
        self.update(values, quantization)
            .map_err(|error| error.to_string())
    }
}

fn tracked(quantization: &Quantization) -> Option<Ranges> {
    Some(Ranges {
        minimum: precision::single(quantization.minimum.clone()?),
        maximum: precision::single(quantization.maximum.clone()?),
    })
}

#[cfg(test)]
pub(crate) mod testing {
    use burn::tensor::{Device, Tensor};

    use super::*;
    use crate::qparams::host;

    /// An observer of the input of a linear layer, quantized to `int4`, and what it knows.
    pub struct Follow {
        pub observer: TargetObserver,
        pub state: Quantization,
    }

    impl Follow {
        pub fn new(kind: ObserverKind, granularity: Granularity) -> Self {
            let settings = QuantizationSettings {
                quant_dtype: Some("int4".parse().unwrap()),
                granularity: Some(granularity),
                ..Default::default()
            };
            Self::with(kind, &settings)
        }

        pub fn with(kind: ObserverKind, settings: &QuantizationSettings) -> Self {
            let observer = TargetObserver::new("Linear", Target::Input(0), settings, kind).unwrap();
            let state = Quantization::of(settings.dtype(), settings.scheme());
            Self { observer, state }
        }

        pub fn see<const R: usize, const C: usize>(&mut self, values: [[f32; C]; R]) {
            let values = Tensor::<2>::from_floats(values, &Device::flex());
            let values = FlatTensor::new(values);
            self.observer.update(&values, &mut self.state).unwrap();
        }

        pub fn compute_qparams(&mut self) {
            self.observer.compute_qparams(&mut self.state).unwrap();
        }

        pub fn tracked(&self) -> (Vec<f32>, Vec<f32>) {
            (observed(&self.state.minimum), observed(&self.state.maximum))
        }
    }

    pub fn observed(tensor: &Option<Tensor<1>>) -> Vec<f32> {
        host(tensor.clone().unwrap()).unwrap()
    }
}

#[cfg(test)]
mod tests {
    use burn::tensor::{Device, Tensor};

    use super::testing::Follow;
    use super::*;

    fn values(values: [[f32; 2]; 2]) -> FlatTensor {
        FlatTensor::new(Tensor::<2>::from_floats(values, &Device::flex()))
    }

    #[test]
    fn values_that_are_not_finite_leave_the_range_alone() {
        let mut follow = Follow::new(ObserverKind::MovingAverage, Granularity::Default);
        follow.see([[1.0, -2.0], [7.0, 0.0]]);
        let bad = values([[1.0, f32::NAN], [7.0, 0.0]]);
        let error = follow
            .observer
            .observe(&bad, &mut follow.state)
            .unwrap_err();
        assert!(error.contains("not finite"), "{error}");
        assert_eq!(follow.tracked(), (vec![-2.0], vec![7.0]));
        let Follow {
            observer,
            mut state,
        } = follow;
        observer
            .with_check(false)
            .observe(&bad, &mut state)
            .unwrap();
        assert!(testing::observed(&state.minimum)[0].is_nan());
    }

    #[test]
    fn one_range_for_calls_with_several_ranks() {
        let mut follow = Follow::new(ObserverKind::MinMax, Granularity::Default);
        follow.see([[5.0, -1.0]]);
        let deep = Tensor::<3>::from_floats([[[2.0, -3.0]]], &Device::flex());
        let deep = FlatTensor::new(deep);
        follow.observer.update(&deep, &mut follow.state).unwrap();
        assert_eq!(follow.tracked(), (vec![-3.0], vec![5.0]));
        assert_eq!(follow.state.grid.blocks(), [1, 1, 1]);
    }

    #[test]
    fn other_channels_than_before_are_an_error() {
        let mut follow = Follow::new(ObserverKind::MinMax, Granularity::PerChannel);
        follow.see([[5.0, -1.0]]);
        let wider = Tensor::<2>::from_floats([[9.0, 9.0, 9.0]], &Device::flex());
        let wider = FlatTensor::new(wider);
        let error = follow.observer.update(&wider, &mut follow.state);
        let (expected, found) = (vec![1, 2], vec![1, 3]);
        let other = QuantizationError::OtherBlocks { expected, found };
        assert_eq!(error.unwrap_err(), other);
        assert_eq!(follow.tracked(), (vec![5.0, -1.0], vec![5.0, -1.0]));
    }

    #[test]
    fn nothing_observed_is_an_error() {
        let Follow {
            observer,
            mut state,
        } = Follow::new(ObserverKind::Mse, Granularity::Default);
        let error = observer.compute_qparams(&mut state).unwrap_err();
        assert_eq!(error, QuantizationError::NothingObserved);
    }

    #[test]
    fn settings_choose_the_observer() {
        let settings = QuantizationSettings {
            observer: Some(ObserverKind::MinMax),
            ..Default::default()
        };
        let mut follow = Follow::with(ObserverKind::MovingAverage, &settings);
        follow.see([[1.0, 2.0]]);
        follow.see([[0.0, 4.0]]);
        assert_eq!(follow.tracked(), (vec![0.0], vec![4.0]));
        let settings = QuantizationSettings {
            observer: Some(ObserverKind::Percentile(10.0)),
            ..Default::default()
        };
        let error = TargetObserver::new("", Target::Input(0), &settings, ObserverKind::Mse);
        let error = error.unwrap_err();
        assert!(matches!(
            error,
            QuantizationError::Setting {
                key: "observer",
                ..
            }
        ));
    }
}
