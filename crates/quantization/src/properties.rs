//! Properties of every type, scheme, granularity and observer.

use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::{
    FlatTensor, Grid, Norm, Quantization, RoundGradient, Target, fake_quantize,
};
use proptest::prelude::*;

use crate::bn_fusion::fold;
use crate::methods::checked_quantize;
use crate::{
    Granularity, ObserverKind, QuantDtype, QuantScheme, QuantizationSettings, TargetObserver,
};

const SHAPE: [usize; 2] = [6, 4];

fn dtypes() -> impl Strategy<Value = QuantDtype> {
    (1u8..=8, any::<bool>()).prop_map(|(bits, signed)| match signed && bits > 1 {
        true => QuantDtype::int(bits).unwrap(),
        false => QuantDtype::uint(bits).unwrap(),
    })
}

/// Granularities of an input and of a weight of this shape.
fn granularities() -> impl Strategy<Value = (Target, Granularity)> {
    let weight = || Target::param("weight");
    prop_oneof![
        Just((Target::Input(0), Granularity::Default)),
        Just((Target::Input(0), Granularity::PerChannel)),
        Just((Target::Input(0), Granularity::Block(vec![-1, 2]))),
        Just((weight(), Granularity::OutChannel)),
        Just((weight(), Granularity::InChannel)),
        Just((weight(), Granularity::Block(vec![3, 2]))),
        Just((weight(), Granularity::Block(vec![1, 1]))),
        Just((weight(), Granularity::Block(vec![2]))),
    ]
}

fn settings() -> impl Strategy<Value = (Target, QuantizationSettings)> {
    let observer = prop_oneof![
        Just(ObserverKind::MinMax),
        Just(ObserverKind::MovingAverage),
        Just(ObserverKind::Percentile(90.0)),
        Just(ObserverKind::Histogram),
        Just(ObserverKind::Mse),
    ];
    (dtypes(), any::<bool>(), granularities(), observer).prop_map(
        |(dtype, affine, (target, granularity), observer)| {
            (
                target,
                QuantizationSettings {
                    quant_dtype: Some(dtype),
                    quant_scheme: Some(match affine || dtype == QuantDtype::UINT1 {
                        true => QuantScheme::Affine,
                        false => QuantScheme::Symmetric,
                    }),
                    granularity: Some(granularity),
                    observer: Some(observer),
                    apply_method: None,
                    fuse_names: None,
                    fuse: None,
                    int32_bias: None,
                },
            )
        },
    )
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

proptest! {
    #[test]
    fn quantized_values_lie_on_the_grid(
        (target, settings) in settings(),
        values in proptest::collection::vec(-40.0f32..60.0, 24),
        shrink in 1e-4f32..1.0,
    ) {
        let values: Vec<f32> = values.iter().map(|x| x * shrink).collect();
        let data = TensorData::new(values.clone(), SHAPE);
        let x = Tensor::<2>::from_data(data, &Device::flex());
        let (dtype, scheme) = (settings.dtype(), settings.scheme());
        let observer =
            TargetObserver::new("Linear", target, &settings, ObserverKind::MinMax).unwrap();
        let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
        let mut state = Quantization::of(dtype, scheme);
        observer.update(&FlatTensor::new(x.clone()), &mut state).unwrap();
        observer.compute_qparams(&mut state).unwrap();

        let (scale, zero) = (state.scale.unwrap(), state.zero_point.unwrap());
        prop_assert_eq!(scale.dims()[0], state.grid.len());
        prop_assert!(host(scale.clone()).iter().all(|s| *s > 0.0 && s.is_finite()));
        let integer = |z: &f32| z.fract() == 0.0 && (qmin..=qmax).contains(z);
        prop_assert!(host(zero.clone()).iter().all(integer));

        let full = |values| state.grid.expand(values, &SHAPE).reshape(SHAPE);
        let (scale, zero): (Tensor<2>, Tensor<2>) = (full(scale), full(zero));
        let gradient = RoundGradient::StraightThrough;
        let quantized = fake_quantize(x, scale.clone(), zero.clone(), qmin, qmax, gradient);
        let (scale, zero) = (host(scale), host(zero));
        for (at, q) in host(quantized).into_iter().enumerate() {
            let (x, s, z) = (values[at], scale[at], zero[at]);
            let position = q / s + z;
            prop_assert!((position - position.round()).abs() < 1e-3, "{q} is not on the grid");
            prop_assert!((qmin - 0.01..=qmax + 0.01).contains(&position));
            let inside = (qmin..=qmax).contains(&(x / s + z));
            prop_assert!(!inside || (x - q).abs() <= s * 0.5001, "{x} became {q}, scale {s}");
        }
    }
    #[test]
    fn learned_scales_span_a_grid(
        dtype in dtypes(),
        blocks in prop_oneof![Just([1, 1]), Just([1, 4]), Just([6, 1]), Just([2, 2])],
        values in proptest::collection::vec(-9.0f32..9.0, 24),
        scales in proptest::collection::vec(-2.0f32..2.0, 6),
        zero_points in proptest::collection::vec(-3.0f32..18.0, 6),
    ) {
        let device = Device::flex();
        let grid = Grid::new(blocks);
        let load = |values: &[f32]| Tensor::<1>::from_floats(&values[..grid.len()], &device);
        let x = Tensor::<2>::from_data(TensorData::new(values, SHAPE), &device);
        let (s, z) = (load(&scales), load(&zero_points));
        let quantized = checked_quantize(FlatTensor::new(x), &grid, s, z, dtype).unwrap();
        prop_assert_eq!(&quantized.shape, &SHAPE);
        let owner = grid.block_of_each_element(&SHAPE);
        for (q, block) in host(quantized.values).into_iter().zip(owner) {
            let block = block as usize;
            let (s, z) = (scales[block].abs().max(f32::EPSILON), zero_points[block]);
            let position = q / s + z;
            prop_assert!((position - position.round()).abs() < 1e-2, "{q} is not on the grid");
            prop_assert!((dtype.qmin() - 0.01..=dtype.qmax() + 0.01).contains(&position));
        }
    }

    #[test]
    fn a_fold_scales_channels_and_keeps_the_function(
        weight in proptest::collection::vec(-2.0f32..2.0, 24),
        gamma in proptest::collection::vec(-2.0f32..2.0, 4),
        mean in proptest::collection::vec(-2.0f32..2.0, 4),
        variance in proptest::collection::vec(0.0f32..4.0, 4),
        x in proptest::collection::vec(-2.0f32..2.0, 6),
    ) {
        let device = Device::flex();
        let vector = |values: &[f32]| Tensor::<1>::from_floats(values, &device);
        let norm = Norm {
            gamma: Some(vector(&gamma)),
            beta: None,
            mean: vector(&mean),
            variance: vector(&variance),
            epsilon: 1e-2,
        };
        let raw = Tensor::<2>::from_data(TensorData::new(weight, SHAPE), &device);
        let x = Tensor::<2>::from_data(TensorData::new(x, [1, 6]), &device);
        let folded = fold::weight(raw.clone(), 1, &norm);
        let found = x.clone().matmul(folded) + fold::bias(None, &norm).unsqueeze();
        let plain = host(x.matmul(raw));
        for (at, found) in host(found).into_iter().enumerate() {
            let factor = gamma[at] / (variance[at] + 1e-2).sqrt();
            let wanted = (plain[at] - mean[at]) * factor;
            prop_assert!((found - wanted).abs() <= 1e-4 * (1.0 + factor.abs() * 30.0));
        }
    }
}
