//! The network of a case as a Burn module.

use std::collections::BTreeMap;
use std::sync::Arc;

use burn::module::{
    Content, Devices, Module, ModuleDisplay, ModuleDisplayDefault, ModuleMapper, ModuleVisitor,
    Param, ParamId,
};
use burn::tensor::{Device, Tensor, activation};
use indexmap::IndexMap;

use super::activation::{Activation, each_rank};
use super::array::Array;
use super::case::{CaseError, ModelSpec, OpSpec, Result};
use super::expression;
use super::layer::RefLayer;
use super::layout;

/// A network read from a case. Its parameter paths are `LAYER.PARAMETER` with the layer names of
/// the case.
#[derive(Debug, Clone)]
pub struct RefModel {
    layers: IndexMap<String, RefLayer>,
    ops: Arc<Vec<OpSpec>>,
}

/// Name under which the module announces itself to visitors.
const CONTAINER: &str = "Struct:RefModel";

impl RefModel {
    /// Builds the network with zeros for parameters.
    ///
    /// The data flow is the list of operations, or the expression, or the only layer. Without any
    /// of these the model holds parameters and cannot be run.
    ///
    /// # Errors
    ///
    /// When a layer is unknown or the data flow names a layer or value that does not exist.
    pub fn build(spec: &ModelSpec, device: &Device) -> Result<Self> {
        let mut layers = IndexMap::new();
        for layer in &spec.layers {
            layers.insert(layer.name.clone(), RefLayer::build(layer, device)?);
        }
        let ops = match (&spec.ops, &spec.forward, spec.layers.as_slice()) {
            (Some(ops), _, _) => ops.clone(),
            (None, Some(forward), _) => expression::parse(forward).unwrap_or_default(),
            (None, None, [only]) => vec![OpSpec {
                op: "layer".to_owned(),
                layer: Some(only.name.clone()),
                inputs: vec!["x".to_owned()],
                output: "y".to_owned(),
            }],
            (None, None, _) => Vec::new(),
        };
        for op in &ops {
            if let Some(layer) = &op.layer
                && !layers.contains_key(layer)
            {
                return Err(CaseError::Failed(format!(
                    "the data flow names an unknown layer `{layer}`"
                )));
            }
        }
        Ok(Self {
            layers,
            ops: Arc::new(ops),
        })
    }

    /// Layers without data flow.
    pub fn from_layers(layers: IndexMap<String, RefLayer>) -> Self {
        Self {
            layers,
            ops: Arc::default(),
        }
    }

    /// Runs the network.
    ///
    /// # Panics
    ///
    /// When the data flow does not fit the shapes.
    pub fn forward(&self, x: Activation) -> Activation {
        let mut values = BTreeMap::from([("x", x)]);
        for op in self.ops.iter() {
            let mut inputs = op.inputs.iter().map(|name| {
                values
                    .get(name.as_str())
                    .cloned()
                    .unwrap_or_else(|| panic!("no value `{name}`"))
            });
            let first = inputs
                .next()
                .expect("an operation reads at least one value");
            let result = match op.op.as_str() {
                "layer" => self.layers[op.layer.as_deref().unwrap_or_default()].forward(first),
                "relu" => each_rank!(first, tensor => activation::relu(tensor)),
                "add" => inputs.fold(first, Activation::plus),
                "cat" => {
                    let maps = std::iter::once(first)
                        .chain(inputs)
                        .map(Activation::feature_maps);
                    Activation::Rank4(Tensor::cat(maps.collect(), 1))
                }
                "mean_hw" => {
                    let mean = first.feature_maps().mean_dim(2).mean_dim(3);
                    Activation::Rank2(mean.flatten(1, 3))
                }
                "flatten" => Activation::Rank2(first.feature_maps().flatten(1, 3)),
                other => panic!("unknown operation `{other}`"),
            };
            values.insert(op.output.as_str(), result);
        }
        values.remove("y").expect("the data flow writes `y`")
    }

    /// The layers by name.
    pub fn layers(&self) -> &IndexMap<String, RefLayer> {
        &self.layers
    }

    /// Burn's class of a layer, empty for an unknown one.
    pub fn kind(&self, layer: &str) -> &'static str {
        self.layers
            .get(layer)
            .map(RefLayer::kind)
            .unwrap_or_default()
    }

    /// Replaces the parameters and running statistics for which `lookup` knows a value, given the
    /// layer and PyTorch's name and in PyTorch's layout. Parameter ids stay.
    ///
    /// # Errors
    ///
    /// When a value has another shape than the parameter.
    pub fn load(self, lookup: impl Fn(&str, &str) -> Option<Array>) -> Result<Self> {
        let kinds = self
            .layers
            .iter()
            .map(|(name, layer)| (name.clone(), layer.kind()));
        let mut loader = Loader {
            path: Vec::new(),
            kinds: kinds.collect(),
            lookup,
            error: None,
        };
        let model = self.map(&mut loader);
        match loader.error {
            Some(error) => Err(error),
            None => Ok(model),
        }
    }

    /// The stored parameters and running statistics by `LAYER.NAME`, in PyTorch's names and layout.
    ///
    /// Of a simulated parameter this is the raw value.
    pub fn parameters(&self) -> IndexMap<String, Array> {
        let mut reader = Reader {
            path: Vec::new(),
            model: self,
            arrays: IndexMap::new(),
            ids: IndexMap::new(),
        };
        self.visit(&mut reader);
        reader.arrays
    }

    /// Identities of the parameters and running statistics by `LAYER.NAME`, in PyTorch's names.
    pub fn parameter_ids(&self) -> IndexMap<String, ParamId> {
        let mut reader = Reader {
            path: Vec::new(),
            model: self,
            arrays: IndexMap::new(),
            ids: IndexMap::new(),
        };
        self.visit(&mut reader);
        reader.ids
    }
}

impl Module for RefModel {
    fn collect_devices(&self, devices: Devices) -> Devices {
        self.layers
            .values()
            .fold(devices, |devices, layer| layer.collect_devices(devices))
    }

    fn fork(self, device: &Device) -> Self {
        self.each(|_, layer| layer.fork(device))
    }

    fn to_device(self, device: &Device) -> Self {
        self.each(|_, layer| layer.to_device(device))
    }

    fn train(self) -> Self {
        self.each(|_, layer| layer.train())
    }

    fn valid(&self) -> Self {
        let layers = self
            .layers
            .iter()
            .map(|(name, layer)| (name.clone(), layer.valid()));
        Self {
            layers: layers.collect(),
            ops: self.ops.clone(),
        }
    }

    fn materialize(self) -> Self {
        self.each(|_, layer| layer.materialize())
    }

    fn visit<V: ModuleVisitor>(&self, visitor: &mut V) {
        for (name, layer) in &self.layers {
            visitor.enter_module(name, CONTAINER);
            layer.visit(visitor);
            visitor.exit_module(name, CONTAINER);
        }
    }

    fn map<M: ModuleMapper>(self, mapper: &mut M) -> Self {
        self.each(|name, layer| {
            mapper.enter_module(name, CONTAINER);
            let layer = layer.map(mapper);
            mapper.exit_module(name, CONTAINER);
            layer
        })
    }
}

impl RefModel {
    fn each(self, mut change: impl FnMut(&str, RefLayer) -> RefLayer) -> Self {
        let layers = self.layers.into_iter().map(|(name, layer)| {
            let layer = change(&name, layer);
            (name, layer)
        });
        Self {
            layers: layers.collect(),
            ops: self.ops,
        }
    }
}

impl ModuleDisplayDefault for RefModel {
    fn content(&self, content: Content) -> Option<Content> {
        let content = self
            .layers
            .iter()
            .fold(content, |content, (name, layer)| content.add(name, layer));
        content.optional()
    }
}

impl ModuleDisplay for RefModel {}

struct Loader<F> {
    path: Vec<String>,
    kinds: IndexMap<String, &'static str>,
    lookup: F,
    error: Option<CaseError>,
}

impl<F: Fn(&str, &str) -> Option<Array>> ModuleMapper for Loader<F> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn map_float<const D: usize>(&mut self, param: Param<Tensor<D>>) -> Param<Tensor<D>> {
        let [layer, name] = self.path.as_slice() else {
            return param;
        };
        let kind = self.kinds.get(layer).copied().unwrap_or_default();
        let torch = layout::torch_target(kind, name);
        let Some(array) = (self.lookup)(layer, torch) else {
            return param;
        };
        let array = layout::convert(kind, torch, &array);
        if param.lazy_shape().as_slice() != array.shape.as_slice() {
            self.error = Some(CaseError::Failed(format!(
                "`{layer}.{name}` has the shape {:?}, the value {:?}",
                param.lazy_shape(),
                array.shape
            )));
            return param;
        }
        param.map(|old| {
            let value = array
                .tensor::<D>(&old.device())
                .expect("the shapes were compared");
            value.set_require_grad(old.is_require_grad())
        })
    }
}

struct Reader<'a> {
    path: Vec<String>,
    model: &'a RefModel,
    arrays: IndexMap<String, Array>,
    ids: IndexMap<String, ParamId>,
}

impl ModuleVisitor for Reader<'_> {
    fn enter_module(&mut self, name: &str, _container: &str) {
        self.path.push(name.to_owned());
    }

    fn exit_module(&mut self, _name: &str, _container: &str) {
        self.path.pop();
    }

    fn visit_float<const D: usize>(&mut self, param: &Param<Tensor<D>>) {
        let [layer, name] = self.path.as_slice() else {
            return;
        };
        let kind = self.model.kind(layer);
        let torch = layout::torch_target(kind, name);
        let array = layout::convert(kind, torch, &Array::from_tensor(param.base()));
        self.arrays.insert(format!("{layer}.{torch}"), array);
        self.ids.insert(format!("{layer}.{torch}"), param.id);
    }
}
