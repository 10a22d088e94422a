//! The few operators of the tests, in `f64` and integers, as ONNX defines them.

use indexmap::IndexMap;

use crate::graph::{Attribute, Constant, Node, OnnxGraph, Values};

/// A tensor of whatever type, its values exact in `f64`.
#[derive(Clone, Debug, PartialEq)]
pub struct Array {
    pub dims: Vec<usize>,
    pub values: Vec<f64>,
    /// The integers that it holds; `None` of floats.
    range: Option<(f64, f64)>,
}

impl Array {
    pub fn new(dims: impl Into<Vec<usize>>, values: &[f64]) -> Self {
        let (dims, values) = (dims.into(), values.to_vec());
        assert_eq!(dims.iter().product::<usize>(), values.len());
        let range = None;
        Self {
            dims,
            values,
            range,
        }
    }

    fn of(constant: &Constant) -> Self {
        let (values, range): (Vec<f64>, _) = match &constant.values {
            Values::Float(v) => (v.iter().map(|&x| x.into()).collect(), None),
            Values::Int64(v) => (v.iter().map(|&x| x as f64).collect(), None),
            Values::Int32(v) => (v.iter().map(|&x| x.into()).collect(), None),
            Values::Int8(v) => (v.iter().map(|&x| x.into()).collect(), Some((-128.0, 127.0))),
            Values::Uint8(v) => (v.iter().map(|&x| x.into()).collect(), Some((0.0, 255.0))),
            Values::Int4(v) => (v.iter().map(|&x| x.into()).collect(), Some((-8.0, 7.0))),
            Values::Bool(v) => (v.iter().map(|&x| f64::from(u8::from(x))).collect(), None),
        };
        let dims = constant.dims.clone();
        Self {
            dims,
            values,
            range,
        }
    }

    fn map(&self, f: impl Fn(f64) -> f64) -> Self {
        Self {
            values: self.values.iter().map(|&x| f(x)).collect(),
            ..self.clone()
        }
    }

    /// The value at an index that may have more dimensions, broadcast.
    fn at(&self, index: &[usize]) -> f64 {
        let skipped = index.len() - self.dims.len();
        let sizes = self.dims.iter().zip(&index[skipped..]);
        let flat = sizes.fold(0, |at, (&size, &i)| {
            at * size + if size == 1 { 0 } else { i }
        });
        self.values[flat]
    }
}

fn indices(dims: &[usize]) -> impl Iterator<Item = Vec<usize>> + '_ {
    (0..dims.iter().product()).map(|flat: usize| {
        let mut rest = flat;
        let mut index: Vec<usize> = dims
            .iter()
            .rev()
            .map(|&size| {
                let at = rest % size;
                rest /= size;
                at
            })
            .collect();
        index.reverse();
        index
    })
}

fn broadcast(a: &Array, b: &Array, f: impl Fn(f64, f64) -> f64) -> Array {
    let rank = a.dims.len().max(b.dims.len());
    let size = |array: &Array, dim: usize| {
        let skipped = rank - array.dims.len();
        if dim < skipped {
            1
        } else {
            array.dims[dim - skipped]
        }
    };
    let dims: Vec<usize> = (0..rank)
        .map(|dim| size(a, dim).max(size(b, dim)))
        .collect();
    let values: Vec<f64> = indices(&dims)
        .map(|index| f(a.at(&index), b.at(&index)))
        .collect();
    Array::new(dims, &values)
}

/// The outputs of a graph.
pub fn evaluate(graph: &OnnxGraph, inputs: &[(&str, Array)]) -> IndexMap<String, Array> {
    let mut known: IndexMap<String, Array> = graph
        .initializers
        .iter()
        .map(|(name, constant)| (name.clone(), Array::of(constant)))
        .collect();
    known.extend(
        inputs
            .iter()
            .map(|(name, array)| (name.to_string(), array.clone())),
    );
    for node in &graph.nodes {
        let read = |at: usize| node.input(at).map(|name| known[name].clone());
        let made = operate(node, &read);
        known.insert(node.output().to_string(), made);
    }
    let outputs = graph.outputs.iter();
    outputs
        .map(|output| (output.name.clone(), known[&output.name].clone()))
        .collect()
}

fn operate(node: &Node, read: &impl Fn(usize) -> Option<Array>) -> Array {
    let x = read(0).unwrap();
    let single = |x: f64| f64::from(x as f32);
    match node.operator.as_str() {
        "QuantizeLinear" => {
            let (scale, zero) = (read(1).unwrap().values[0], read(2).unwrap());
            let (low, high) = zero.range.unwrap();
            let q =
                x.map(|x| (single(x / scale).round_ties_even() + zero.values[0]).clamp(low, high));
            Array {
                range: zero.range,
                ..q
            }
        }
        "DequantizeLinear" => {
            let (scale, zero) = (read(1).unwrap(), read(2));
            let axis = node.int("axis").unwrap_or(1) as usize;
            let of = |array: &Array, index: &[usize]| match array.values[..] {
                [value] => value,
                _ => array.values[index[axis]],
            };
            let values: Vec<f64> = indices(&x.dims)
                .map(|index| {
                    let zero = zero.as_ref().map_or(0.0, |zero| of(zero, &index));
                    single((x.at(&index) - zero) * of(&scale, &index))
                })
                .collect();
            Array::new(x.dims.clone(), &values)
        }
        "Conv" => {
            let (w, b) = (read(1).unwrap(), read(2));
            let [n, _, h, width] = x.dims[..] else {
                panic!("images only")
            };
            let [out, per_group, kh, kw] = w.dims[..] else {
                panic!("images only")
            };
            let groups = node.int("group").unwrap_or(1) as usize;
            let dims = vec![n, out, h + 1 - kh, width + 1 - kw];
            let values: Vec<f64> = indices(&dims)
                .map(|at| {
                    let first = at[1] / (out / groups) * per_group;
                    let window = [per_group, kh, kw];
                    let products = indices(&window).map(|k| {
                        let weight = w.at(&[at[1], k[0], k[1], k[2]]);
                        weight * x.at(&[at[0], first + k[0], at[2] + k[1], at[3] + k[2]])
                    });
                    products.sum::<f64>() + b.as_ref().map_or(0.0, |b| b.values[at[1]])
                })
                .collect();
            Array::new(dims, &values)
        }
        "Gemm" | "MatMul" => {
            let (w, b) = (read(1).unwrap(), read(2));
            let turned = node.int("transB") == Some(1);
            let out = w.dims[usize::from(!turned)];
            let inner = w.dims[usize::from(turned)];
            let mut dims = x.dims.clone();
            *dims.last_mut().unwrap() = out;
            let values: Vec<f64> = indices(&dims)
                .map(|at| {
                    let (&column, rows) = at.split_last().unwrap();
                    let products = (0..inner).map(|k| {
                        let weight = if turned {
                            w.at(&[column, k])
                        } else {
                            w.at(&[k, column])
                        };
                        weight * x.at(&[rows, &[k]].concat())
                    });
                    products.sum::<f64>() + b.as_ref().map_or(0.0, |b| b.values[column])
                })
                .collect();
            Array::new(dims, &values)
        }
        "BatchNormalization" => {
            let [gamma, beta, mean, var] = [1, 2, 3, 4].map(|at| read(at).unwrap().values);
            let epsilon = f64::from(node.float("epsilon").unwrap_or(1e-5));
            let values: Vec<f64> = indices(&x.dims)
                .map(|at| {
                    let c = at[1];
                    gamma[c] * (x.at(&at) - mean[c]) / (var[c] + epsilon).sqrt() + beta[c]
                })
                .collect();
            Array::new(x.dims.clone(), &values)
        }
        "Add" => broadcast(&x, &read(1).unwrap(), |a, b| a + b),
        "Mul" => broadcast(&x, &read(1).unwrap(), |a, b| a * b),
        "Relu" => x.map(|x| x.max(0.0)),
        "Clip" => {
            let bound = |at: usize, open: f64| read(at).map_or(open, |bound| bound.values[0]);
            let (low, high) = (bound(1, f64::NEG_INFINITY), bound(2, f64::INFINITY));
            x.map(|x| x.clamp(low, high))
        }
        "MaxPool" => {
            assert_eq!(node.attributes["kernel_shape"], Attribute::Ints(vec![2, 2]));
            let dims = vec![x.dims[0], x.dims[1], x.dims[2] / 2, x.dims[3] / 2];
            let values: Vec<f64> = indices(&dims)
                .map(|at| {
                    let window = indices(&[2, 2])
                        .map(|k| x.at(&[at[0], at[1], 2 * at[2] + k[0], 2 * at[3] + k[1]]));
                    window.fold(f64::NEG_INFINITY, f64::max)
                })
                .collect();
            Array::new(dims, &values)
        }
        "Reshape" => {
            let wanted = read(1).unwrap().values;
            let size = |(dim, &size): (usize, &f64)| match size as i64 {
                0 => Some(x.dims[dim]),
                -1 => None,
                size => Some(size as usize),
            };
            let sizes: Vec<Option<usize>> = wanted.iter().enumerate().map(size).collect();
            let known: usize = sizes.iter().flatten().product();
            let rest = x.values.len() / known;
            let dims = sizes.iter().map(|size| size.unwrap_or(rest)).collect();
            Array { dims, ..x }
        }
        "Flatten" => Array {
            dims: vec![x.dims[0], x.dims[1..].iter().product()],
            ..x
        },
        "Concat" => {
            let parts: Vec<Array> = (0..node.inputs.len()).map(|at| read(at).unwrap()).collect();
            let mut dims = x.dims.clone();
            dims[1] = parts.iter().map(|part| part.dims[1]).sum();
            let values: Vec<f64> = indices(&dims)
                .map(|mut at| {
                    let mut parts = parts.iter();
                    let mut part = parts.next().unwrap();
                    while at[1] >= part.dims[1] {
                        at[1] -= part.dims[1];
                        part = parts.next().unwrap();
                    }
                    part.at(&at)
                })
                .collect();
            Array::new(dims, &values)
        }
        "GlobalAveragePool" => {
            let dims = vec![x.dims[0], x.dims[1], 1, 1];
            let count = (x.dims[2] * x.dims[3]) as f64;
            let values: Vec<f64> = indices(&dims)
                .map(|at| {
                    let pixels = indices(&x.dims[2..]).map(|p| x.at(&[at[0], at[1], p[0], p[1]]));
                    pixels.sum::<f64>() / count
                })
                .collect();
            Array::new(dims, &values)
        }
        operator => panic!("the tests have no {operator}"),
    }
}
