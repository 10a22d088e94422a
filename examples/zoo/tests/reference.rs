//! Names and shapes of the full networks against those of their references.

use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{ModuleVisitor, Param};
use burn::tensor::{Device, Tensor};
use burn_compress_zoo::{Model, Scale, Task, TorchNames, Zoo};

/// Names in PyTorch and the shapes there.
struct Names;

impl Task for Names {
    type Output = BTreeMap<String, Vec<usize>>;

    fn run<M: Model>(self, model: M) -> Self::Output {
        let mut visitor = Shapes {
            names: model.torch_names(),
            path: Vec::new(),
            found: BTreeMap::new(),
        };
        model.visit(&mut visitor);
        visitor.found
    }
}

struct Shapes {
    names: TorchNames,
    /// Names on the way, each with the type that it is a field of.
    path: Vec<(String, String)>,
    found: BTreeMap<String, Vec<usize>>,
}

impl ModuleVisitor for Shapes {
    fn enter_module(&mut self, name: &str, container_type: &str) {
        self.path
            .push((name.to_string(), container_type.to_string()));
    }

    fn exit_module(&mut self, _name: &str, _container_type: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let Some((name, layer)) = self.path.last() else {
            return;
        };
        // What burn-store's adapter of PyTorch does.
        let name = match name.as_str() {
            "gamma" => "weight",
            "beta" => "bias",
            name => name,
        };
        let mut shape = param.lazy_shape().to_vec();
        if layer == "Struct:Linear" && name == "weight" {
            shape.reverse();
        }
        let parents = self.path.iter().rev().skip(1).rev();
        let mut path: Vec<&str> = parents.map(|(name, _)| name.as_str()).collect();
        path.push(name);
        self.found
            .insert(self.names.to_torch(&path.join(".")), shape);
    }
}

/// Each network for which PyTorch has a reference: torchvision 0.29 and, for BERT and SmolLM2,
/// transformers 5.24. A line is a name and the sizes, counters and indices that follow from the sizes
/// are left out.
#[test]
fn names_and_shapes_of_the_full_networks_are_those_of_the_references() {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/reference");
    let mut compared = Vec::new();
    let mut wrong = Vec::new();
    for &zoo in Zoo::ALL {
        let Ok(text) = std::fs::read_to_string(directory.join(format!("{}.txt", zoo.name())))
        else {
            continue;
        };
        let expected: BTreeMap<String, Vec<usize>> = text
            .lines()
            .map(|line| {
                let mut words = line.split(' ');
                let name = words.next().unwrap_or_default().to_string();
                (name, words.map(|size| size.parse().unwrap()).collect())
            })
            .collect();
        let found = zoo.with(Scale::Full, &Device::flex(), Names);
        let missing = expected
            .iter()
            .filter(|&(name, shape)| found.get(name) != Some(shape));
        wrong
            .extend(missing.map(|(name, shape)| format!("{}: lacks {name} {shape:?}", zoo.name())));
        let more = found
            .iter()
            .filter(|&(name, shape)| expected.get(name) != Some(shape));
        wrong.extend(more.map(|(name, shape)| format!("{}: has {name} {shape:?}", zoo.name())));
        compared.push(zoo.name());
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    assert_eq!(compared.len(), 13, "{compared:?}");
}
