//! Bytes of an ONNX file.

use prost::Message;

use crate::ExportError;
use crate::graph::{Attribute, Constant, Element, Node, OnnxGraph, Size, Value, Values};
use crate::proto::{
    AttributeProto, DimensionProto, GraphProto, ModelProto, NodeProto, OperatorSetIdProto,
    TensorProto, TensorShapeProto, TensorTypeProto, TypeProto, ValueInfoProto, attribute_type,
    data_type,
};

/// Largest protobuf message that readers accept: sizes are signed integers of 32 bits.
const LIMIT: u64 = i32::MAX as u64;

/// A graph as an ONNX file.
///
/// Operators of set 18, IR version 8; set 21 and version 10 if constants of 4 bits are among the
/// initializers, which no earlier set can read. Intermediate tensors have no type in the file: every
/// runtime infers them, and some reject symbolic sizes there.
///
/// # Errors
///
/// Above 2 GiB, before anything is copied.
pub(crate) fn encode(graph: &OnnxGraph) -> Result<Vec<u8>, ExportError> {
    let raw = graph.initializers.values().map(raw_bytes).sum();
    check_size(raw)?;
    let model = model(graph);
    check_size(model.encoded_len() as u64)?;
    Ok(model.encode_to_vec())
}

fn check_size(bytes: u64) -> Result<(), ExportError> {
    if bytes > LIMIT {
        let limit = LIMIT;
        return Err(ExportError::TooLarge { bytes, limit });
    }
    Ok(())
}

/// The version of the operator set that a graph needs.
pub(crate) fn opset(graph: &OnnxGraph) -> i64 {
    let mut constants = graph.initializers.values();
    let four_bits = constants.any(|constant| matches!(constant.values, Values::Int4(_)));
    if four_bits { 21 } else { 18 }
}

fn model(graph: &OnnxGraph) -> ModelProto {
    let opset = opset(graph);
    let ir_version = if opset == 21 { 10 } else { 8 };
    ModelProto {
        ir_version: Some(ir_version),
        producer_name: "burn-compress".to_string(),
        producer_version: env!("CARGO_PKG_VERSION").to_string(),
        graph: Some(GraphProto {
            name: "main".to_string(),
            node: graph.nodes.iter().map(node).collect(),
            initializer: graph.initializers.iter().map(initializer).collect(),
            input: graph.inputs.iter().map(value_info).collect(),
            output: graph.outputs.iter().map(value_info).collect(),
        }),
        opset_import: vec![OperatorSetIdProto {
            domain: Some(String::new()),
            version: Some(opset),
        }],
    }
}

fn node(node: &Node) -> NodeProto {
    NodeProto {
        input: node.inputs.clone(),
        output: node.outputs.clone(),
        name: node.name.clone(),
        op_type: node.operator.clone(),
        attribute: node.attributes.iter().map(attribute).collect(),
    }
}

fn attribute((name, value): (&String, &Attribute)) -> AttributeProto {
    let mut proto = AttributeProto {
        name: name.clone(),
        ..AttributeProto::default()
    };
    let code = match value {
        Attribute::Int(value) => {
            proto.i = Some(*value);
            attribute_type::INT
        }
        Attribute::Ints(values) => {
            proto.ints.clone_from(values);
            attribute_type::INTS
        }
        Attribute::Float(value) => {
            proto.f = Some(*value);
            attribute_type::FLOAT
        }
        Attribute::Text(text) => {
            proto.s = Some(text.clone().into_bytes());
            attribute_type::STRING
        }
    };
    proto.r#type = Some(code);
    proto
}

fn initializer((name, constant): (&String, &Constant)) -> TensorProto {
    TensorProto {
        dims: constant.dims.iter().map(|&size| size as i64).collect(),
        data_type: Some(constant_type(&constant.values)),
        name: name.clone(),
        raw_data: Some(raw(&constant.values)),
    }
}

fn constant_type(values: &Values) -> i32 {
    match values {
        Values::Float(_) => data_type::FLOAT,
        Values::Int64(_) => data_type::INT64,
        Values::Int32(_) => data_type::INT32,
        Values::Int8(_) => data_type::INT8,
        Values::Uint8(_) => data_type::UINT8,
        Values::Int4(_) => data_type::INT4,
        Values::Bool(_) => data_type::BOOL,
    }
}

fn raw_bytes(constant: &Constant) -> u64 {
    let bytes = match &constant.values {
        Values::Float(values) => 4 * values.len(),
        Values::Int64(values) => 8 * values.len(),
        Values::Int32(values) => 4 * values.len(),
        Values::Int8(values) => values.len(),
        Values::Uint8(values) => values.len(),
        Values::Int4(values) => values.len().div_ceil(2),
        Values::Bool(values) => values.len(),
    };
    bytes as u64
}

fn raw(values: &Values) -> Vec<u8> {
    match values {
        Values::Float(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Values::Int64(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Values::Int32(values) => values.iter().flat_map(|x| x.to_le_bytes()).collect(),
        Values::Int8(values) => values.iter().map(|&x| x as u8).collect(),
        Values::Uint8(values) => values.clone(),
        // The first of two elements has the low bits.
        Values::Int4(values) => values
            .chunks(2)
            .map(|pair| (pair[0] as u8 & 15) | (pair.get(1).map_or(0, |&x| x as u8 & 15) << 4))
            .collect(),
        Values::Bool(values) => values.iter().map(|&x| u8::from(x)).collect(),
    }
}

fn value_info(value: &Value) -> ValueInfoProto {
    let element = match value.element {
        Element::Float => data_type::FLOAT,
        Element::Int64 => data_type::INT64,
        Element::Bool => data_type::BOOL,
    };
    let dim = value.dims.iter().map(|size| match size {
        Size::Fixed(size) => DimensionProto {
            dim_value: Some(*size as i64),
            dim_param: None,
        },
        Size::Named(name) => DimensionProto {
            dim_value: None,
            dim_param: Some(name.clone()),
        },
    });
    ValueInfoProto {
        name: value.name.clone(),
        r#type: Some(TypeProto {
            tensor_type: Some(TensorTypeProto {
                elem_type: Some(element),
                shape: Some(TensorShapeProto { dim: dim.collect() }),
            }),
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn constant(dims: &[usize], values: Values) -> Constant {
        let dims = dims.to_vec();
        Constant { dims, values }
    }

    fn graph() -> OnnxGraph {
        let clip = Node::new("Clip", ["x", "", "upper"], ["y"])
            .with("axis", Attribute::Int(0))
            .with("pads", Attribute::Ints(vec![0, -1, 300]))
            .with("alpha", Attribute::Float(0.0))
            .with("mode", Attribute::Text("edge".to_string()));
        let value = |name: &str| Value {
            name: name.to_string(),
            element: Element::Float,
            dims: vec![Size::Named("batch".to_string()), Size::Fixed(2)],
        };
        OnnxGraph {
            nodes: vec![clip],
            initializers: [(
                "upper".to_string(),
                constant(&[2], Values::Float(vec![1.0, -2.0])),
            )]
            .into(),
            inputs: vec![value("x")],
            outputs: vec![value("y")],
        }
    }

    fn decoded(graph: &OnnxGraph) -> ModelProto {
        ModelProto::decode(&encode(graph).unwrap()[..]).unwrap()
    }

    #[test]
    fn a_graph_is_read_back() {
        let model = decoded(&graph());
        assert_eq!(model.ir_version, Some(8));
        assert_eq!(model.opset_import[0].version, Some(18));
        let graph = model.graph.unwrap();
        let node = &graph.node[0];
        assert_eq!(node.op_type, "Clip");
        assert_eq!(node.input, ["x", "", "upper"]);
        assert_eq!((node.name.as_str(), node.output[0].as_str()), ("y", "y"));
        let [axis, pads, alpha, mode] = &node.attribute[..] else {
            panic!("{:?}", node.attribute)
        };
        // A zero is written too.
        assert_eq!((axis.i, axis.r#type), (Some(0), Some(2)));
        assert_eq!((&pads.ints[..], pads.r#type), (&[0, -1, 300][..], Some(7)));
        assert_eq!((alpha.f, alpha.r#type), (Some(0.0), Some(1)));
        assert_eq!(mode.s.as_deref(), Some(&b"edge"[..]));
        let upper = &graph.initializer[0];
        assert_eq!((upper.name.as_str(), &upper.dims[..]), ("upper", &[2][..]));
        assert_eq!(
            upper.raw_data.as_deref(),
            Some(&[0, 0, 128, 63, 0, 0, 0, 192][..])
        );
        let shape = graph.input[0].r#type.clone().unwrap().tensor_type.unwrap();
        assert_eq!(shape.elem_type, Some(1));
        let dims = shape.shape.unwrap().dim;
        assert_eq!(dims[0].dim_param.as_deref(), Some("batch"));
        assert_eq!(dims[1].dim_value, Some(2));
    }

    #[test]
    fn bytes_of_the_wire_format() {
        let graph = OnnxGraph {
            nodes: vec![Node::new("Relu", ["x"], ["y"])],
            ..OnnxGraph::default()
        };
        let proto = node(&graph.nodes[0]).encode_to_vec();
        // Field 1 "x", field 2 "y", field 3 "y", field 4 "Relu".
        assert_eq!(proto, b"\x0a\x01x\x12\x01y\x1a\x01y\x22\x04Relu");
    }

    #[test]
    fn elements_of_every_type() {
        assert_eq!(raw(&Values::Int8(vec![-1, 2])), [255, 2]);
        assert_eq!(raw(&Values::Uint8(vec![200])), [200]);
        assert_eq!(raw(&Values::Bool(vec![true, false])), [1, 0]);
        assert_eq!(raw(&Values::Int32(vec![-2])), [254, 255, 255, 255]);
        assert_eq!(raw(&Values::Int64(vec![258])), [2, 1, 0, 0, 0, 0, 0, 0]);
        // -8 and 7, then 3 alone.
        assert_eq!(raw(&Values::Int4(vec![-8, 7, 3])), [0x78, 0x03]);
    }

    #[test]
    fn four_bits_need_operator_set_21() {
        let mut graph = graph();
        let four = constant(&[3], Values::Int4(vec![1, 2, 3]));
        graph.initializers.insert("w".to_string(), four);
        let model = decoded(&graph);
        assert_eq!(model.ir_version, Some(10));
        assert_eq!(model.opset_import[0].version, Some(21));
        assert_eq!(model.graph.unwrap().initializer[1].data_type, Some(22));
    }

    #[test]
    fn a_file_above_the_limit_is_refused() {
        assert!(check_size(LIMIT).is_ok());
        let message = check_size(LIMIT + 1).unwrap_err().to_string();
        assert!(message.contains("2147483648 bytes"), "{message}");
        assert!(message.contains("make the model smaller"), "{message}");
    }
}
