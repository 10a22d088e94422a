//! Sensitivity of small networks of the zoo, and the cut by the rules that are made of it.

use burn::tensor::{Device, Tensor};
use burn_compress::graph::ForwardOutputs;
use burn_compress::prelude::*;
use burn_compress_zoo::{Model, Scale, Task, Zoo, parameters, randomize_statistics};

/// Parameters and MACs that the allocation promises, and those of the small model.
struct Sizes {
    promised: [u64; 2],
    found: [u64; 2],
}

/// Measures convolutions and linear layers but the outputs, and cuts by rules for three fifths of the
/// parameters.
struct Cut(Zoo);

impl Task for Cut {
    type Output = Sizes;

    fn run<M: Model>(self, model: M) -> Sizes {
        let (device, size) = (Device::flex(), self.0.input_size(Scale::Tiny));
        let model = randomize_statistics(model.valid(), 1);
        let input = model.random_input(2, size, &device);
        let expected = values(&model, &input);
        let batch = input.clone();
        let evaluator = Evaluator::new()
            .with_dummy_input(DummyInput::new(input, M::run))
            .with_data(move |_| vec![batch.clone()])
            .with_loss(move |model: &M, input: &M::Input| {
                let pairs = values(model, input).into_iter().zip(&expected);
                let squares: Vec<f32> = pairs.map(|(a, b)| (a - b).powi(2)).collect();
                Tensor::<1>::from_floats(&squares[..], &Device::flex()).mean()
            });
        let fixed = self.0.outputs().iter().chain(self.0.fixed()).copied();
        let layers = on(["Conv2d", "Linear"]).with_exclude_op_names(fixed);
        let sensitivity = SensitivityConfig::new()
            .with_pruning(layers)
            .with_sparsities([0.5, 0.75])
            .analyze(model.clone(), evaluator.clone())
            .unwrap();
        let dense = parameters(&model) as u64;
        assert_eq!(sensitivity.parameters(), Some(dense));
        assert!(
            sensitivity
                .units
                .iter()
                .all(|unit| unit.points[0].removed > 0)
        );
        let budget = SizeBudget::ParameterRatio(0.6);
        let allocation = sensitivity.allocate(budget).unwrap();
        assert!(5 * allocation.parameters <= 3 * dense);

        let config = PrunerConfig::new();
        let chain = L1NormPruner::new(model, allocation.rules(), evaluator, config).unwrap();
        let small = chain.compress(Budget::none()).unwrap().speedup().unwrap();
        assert_eq!(sensitivity.macs(), Some(small.report.macs.dense));
        Sizes {
            promised: [allocation.parameters, allocation.macs],
            found: [small.report.params.small, small.report.macs.small],
        }
    }
}

fn values<M: Model>(model: &M, input: &M::Input) -> Vec<f32> {
    let outputs = model.run(input.clone()).data().into_iter();
    let values = outputs.flat_map(|data| data.try_to_vec::<f32>().unwrap());
    values.collect()
}

fn cut(zoo: Zoo) -> Sizes {
    let device = Device::flex();
    device.seed(5);
    zoo.with(Scale::Tiny, &device, Cut(zoo))
}

#[test]
fn sizes_are_those_that_were_promised() {
    for zoo in [
        Zoo::ResNet18,
        Zoo::ResNet50,
        Zoo::Vgg16,
        Zoo::MobileNetV2,
        Zoo::MobileNetV3,
        Zoo::EfficientNet,
        Zoo::ConvNeXt,
    ] {
        let Sizes { promised, found } = cut(zoo);
        assert_eq!(promised, found, "{}", zoo.name());
    }
}

/// Of layers that a concatenation joins, one may lose more channels than another.
#[test]
fn sizes_behind_concatenations_are_close() {
    let Sizes { promised, found } = cut(Zoo::DenseNet121);
    for (promised, found) in promised.into_iter().zip(found) {
        assert!(
            promised.abs_diff(found) * 10 < found,
            "{promised} promised, {found} found"
        );
    }
}
