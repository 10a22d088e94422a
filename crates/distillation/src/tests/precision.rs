//! Students and teachers of different precision.

use burn::module::{ModuleMapper, Param};
use burn::tensor::DType;
use burn_compress_core::{Budget, Compressor};
use rstest::rstest;

use super::*;
use crate::distillers;
use crate::registry::{Needs, Supervision};

struct Cast(DType);

impl ModuleMapper for Cast {
    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        param.map(|tensor| tensor.cast(self.0))
    }
}

fn in_precision(net: Net, dtype: DType) -> Net {
    net.map(&mut Cast(dtype))
}

#[rstest]
#[case(DType::F32, DType::F64)]
#[case(DType::F32, DType::F16)]
#[case(DType::F64, DType::F32)]
#[case(DType::F64, DType::F64)]
#[case(DType::F16, DType::F32)]
fn every_distiller_bridges_precisions(#[case] student: DType, #[case] teacher: DType) {
    for entry in distillers::<Net, Net, Batch>() {
        let layers = match entry.needs {
            Needs::Logits => "fc",
            _ => "second",
        };
        let rules = rules(&format!(r#"[{{"op_names": ["{layers}"]}}]"#));
        let supervision = Supervision::new(
            &in_precision(net(3, 2), teacher),
            move |net: &Net, batch: &Batch| net.forward(batch.images.clone().cast(teacher)),
            labels,
        );
        let evaluator = evaluator().with_loss(move |net: &Net, batch: &Batch| {
            net.forward(batch.images.clone().cast(student))
                .square()
                .mean()
        });
        let model = in_precision(net(3, 1), student);
        let chain = Compressor::from_model(model, evaluator);
        let chain = (entry.fuse)(chain, &rules, &supervision).unwrap();
        let compressed = chain.compress(Budget::steps(2)).unwrap();
        for (loss, task) in losses(&compressed) {
            assert!(loss > task, "{}: {loss} {task}", entry.name);
        }
    }
}

#[rstest]
#[case::silent(0.0)]
#[case::loud(300.0)]
fn losses_of_half_precision_students_stay_finite(#[case] scale: f64) {
    let teacher = net(3, 2);
    for entry in distillers::<Net, Net, Batch>() {
        if entry.needs == Needs::Logits {
            continue;
        }
        let supervision = Supervision::new(&teacher, logits, labels);
        let mut model = in_precision(net(3, 1), DType::F16);
        model.second.weight = model.second.weight.clone().map(|weight| weight * scale);
        model.second.bias = None;
        let evaluator =
            evaluator()
                .with_learning_rate(0.0)
                .with_loss(|net: &Net, batch: &Batch| {
                    net.forward(batch.images.clone().cast(DType::F16)).mean()
                });
        let chain = Compressor::from_model(model, evaluator);
        let rules = rules(r#"[{"op_names": ["second"], "lambda": 1e-3}]"#);
        let chain = (entry.fuse)(chain, &rules, &supervision).unwrap();
        let compressed = chain.compress(Budget::steps(1));
        assert!(compressed.is_ok(), "{}: {compressed:?}", entry.name);
    }
}
