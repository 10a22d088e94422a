//! What holds for every type, scheme, granularity and observer.

use burn::tensor::{Device, Tensor, TensorData};
use burn_compress_core::{FlatTensor, Quantization, RoundGradient, Target, fake_quantize};
use proptest::prelude::*;

use crate::{
    Granularity, ObserverKind, QuantDtype, QuantScheme, QuantizationSettings, TargetObserver,
    blocks,
};

const SHAPE: [usize; 2] = [6, 4];

fn settings() -> impl Strategy<Value = QuantizationSettings> {
    let dtype = (1u8..=8, any::<bool>()).prop_map(|(bits, signed)| match signed && bits > 1 {
        true => QuantDtype::int(bits).unwrap(),
        false => QuantDtype::uint(bits).unwrap(),
    });
    let granularity = prop_oneof![
        Just(Granularity::Default),
        Just(Granularity::PerChannel),
        Just(Granularity::Blocks(vec![-1, 2])),
    ];
    let observer = prop_oneof![
        Just(ObserverKind::MinMax),
        Just(ObserverKind::MovingAverage),
        Just(ObserverKind::Percentile(90.0)),
        Just(ObserverKind::Histogram),
        Just(ObserverKind::Mse),
    ];
    (dtype, any::<bool>(), granularity, observer).prop_map(
        |(dtype, affine, granularity, observer)| QuantizationSettings {
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
        },
    )
}

fn host<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec().unwrap()
}

proptest! {
    #[test]
    fn quantized_values_lie_on_the_grid(
        settings in settings(),
        values in proptest::collection::vec(-40.0f32..60.0, 24),
        shrink in 1e-4f32..1.0,
    ) {
        let values: Vec<f32> = values.iter().map(|x| x * shrink).collect();
        let data = TensorData::new(values.clone(), SHAPE);
        let x = Tensor::<2>::from_data(data, &Device::flex());
        let (dtype, scheme) = (settings.dtype(), settings.scheme());
        let input = Target::Input(0);
        let observer =
            TargetObserver::new("Linear", input, &settings, ObserverKind::MinMax).unwrap();
        let (qmin, qmax) = (dtype.qmin(), dtype.qmax());
        let mut state = Quantization::new(dtype.to_string(), scheme.to_string(), qmin, qmax);
        observer.update(&FlatTensor::new(x.clone()), &mut state).unwrap();
        observer.settle(&mut state).unwrap();

        let (scale, zero) = (state.scale.unwrap(), state.zero_point.unwrap());
        prop_assert_eq!(scale.dims()[0], state.grid.len());
        prop_assert!(host(scale.clone()).iter().all(|s| *s > 0.0 && s.is_finite()));
        let integer = |z: &f32| z.fract() == 0.0 && (qmin..=qmax).contains(z);
        prop_assert!(host(zero.clone()).iter().all(integer));

        let scale = blocks::expand(scale, &state.grid, SHAPE).unwrap();
        let zero = blocks::expand(zero, &state.grid, SHAPE).unwrap();
        let gradient = RoundGradient::StraightThrough;
        let quantized = fake_quantize(x, scale.clone(), zero.clone(), qmin, qmax, gradient);
        let full = |tensor: Tensor<2>| host(tensor.expand(SHAPE));
        let (scale, zero) = (full(scale), full(zero));
        for (at, q) in host(quantized).into_iter().enumerate() {
            let (x, s, z) = (values[at], scale[at], zero[at]);
            let position = q / s + z;
            prop_assert!((position - position.round()).abs() < 1e-3, "{q} is not on the grid");
            prop_assert!((qmin - 0.01..=qmax + 0.01).contains(&position));
            let inside = (qmin..=qmax).contains(&(x / s + z));
            prop_assert!(!inside || (x - q).abs() <= s * 0.5001, "{x} became {q}, scale {s}");
        }
    }
}
