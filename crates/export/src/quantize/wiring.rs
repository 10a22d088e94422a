//! Neighbours of tensors in a graph, and changes of the wiring.

use std::collections::{BTreeMap, BTreeSet};

use crate::graph::{Attribute, Constant, Node, OnnxGraph, Values};

impl Constant {
    /// A scalar of floats.
    pub fn scalar(value: f32) -> Self {
        Self {
            dims: Vec::new(),
            values: Values::Float(vec![value]),
        }
    }

    /// Floats along one dimension.
    pub fn vector(values: Vec<f32>) -> Self {
        Self {
            dims: vec![values.len()],
            values: Values::Float(values),
        }
    }

    /// The elements, if they are floats.
    pub fn floats(&self) -> Option<&[f32]> {
        match &self.values {
            Values::Float(values) => Some(values),
            _ => None,
        }
    }
}

impl Node {
    /// An integer attribute.
    pub fn int(&self, name: &str) -> Option<i64> {
        match self.attributes.get(name)? {
            Attribute::Int(value) => Some(*value),
            _ => None,
        }
    }

    /// A float attribute.
    pub fn float(&self, name: &str) -> Option<f32> {
        match self.attributes.get(name)? {
            Attribute::Float(value) => Some(*value),
            _ => None,
        }
    }

    /// The first output, which names the operator in the graph.
    pub fn output(&self) -> &str {
        self.outputs.first().map_or("", String::as_str)
    }

    /// The input at this position, if it is there.
    pub fn input(&self, at: usize) -> Option<&str> {
        let input = self.inputs.get(at).map(String::as_str);
        input.filter(|name| !name.is_empty())
    }

    /// Reads `new` wherever `old` is read.
    pub fn replace_input(&mut self, old: &str, new: &str) {
        for input in self.inputs.iter_mut().filter(|input| *input == old) {
            *input = new.to_string();
        }
    }
}

impl OnnxGraph {
    /// Position of the operator that makes a tensor.
    pub fn producer(&self, tensor: &str) -> Option<usize> {
        let makes = |node: &Node| node.outputs.iter().any(|output| output == tensor);
        self.nodes.iter().position(makes)
    }

    /// Positions of the operators that read a tensor, each once.
    pub fn readers(&self, tensor: &str) -> Vec<usize> {
        let nodes = self.nodes.iter().enumerate();
        let reads = |node: &Node| node.inputs.iter().any(|input| input == tensor);
        nodes
            .filter(|(_, node)| reads(node))
            .map(|(at, _)| at)
            .collect()
    }

    /// The only reader of a tensor that is no output of the graph.
    pub fn only_reader(&self, tensor: &str) -> Option<usize> {
        match self.readers(tensor)[..] {
            [reader] if !self.is_output(tensor) => Some(reader),
            _ => None,
        }
    }

    /// Whether a tensor is put out.
    pub fn is_output(&self, tensor: &str) -> bool {
        self.outputs.iter().any(|output| output.name == tensor)
    }

    /// The floats of a constant.
    pub fn floats(&self, name: &str) -> Option<&[f32]> {
        self.initializers.get(name)?.floats()
    }

    /// `wish`, or `wish_2` and so on where a tensor or constant has that name.
    pub fn fresh(&self, wish: &str) -> String {
        let taken = |name: &str| {
            self.initializers.contains_key(name)
                || self.inputs.iter().any(|input| input.name == name)
                || self.producer(name).is_some()
        };
        let numbered = (2..).map(|number| format!("{wish}_{number}"));
        let mut names = std::iter::once(wish.to_string()).chain(numbered);
        names.find(|name| !taken(name)).unwrap_or_default()
    }

    /// Adds a constant, or finds the equal one that had the same wish.
    pub fn constant(&mut self, wish: &str, constant: Constant) -> String {
        if self.initializers.get(wish) == Some(&constant) {
            return wish.to_string();
        }
        let name = self.fresh(wish);
        self.initializers.insert(name.clone(), constant);
        name
    }

    /// Removes the operator that makes a tensor; whoever read the tensor reads `instead`.
    pub fn bypass(&mut self, tensor: &str, instead: &str) {
        if let Some(at) = self.producer(tensor) {
            self.nodes.remove(at);
        }
        for node in &mut self.nodes {
            node.replace_input(tensor, instead);
        }
    }

    /// Gives a tensor another name everywhere.
    pub fn rename(&mut self, old: &str, new: &str) {
        for node in &mut self.nodes {
            node.replace_input(old, new);
            for output in node.outputs.iter_mut().filter(|output| *output == old) {
                *output = new.to_string();
            }
        }
        for output in self.outputs.iter_mut().filter(|output| output.name == old) {
            output.name = new.to_string();
        }
    }

    /// Gives the outputs these names, and whatever had one of them another.
    pub fn name_outputs(&mut self, names: &[String]) {
        for (at, name) in names.iter().enumerate() {
            let made = self.outputs[at].name.clone();
            if made != *name {
                self.rename(name, &self.fresh(&format!("{name}_raw")));
                self.rename(&made, name);
            }
        }
    }

    /// Brings the operators into an order in which they can run, the present one where it can.
    pub fn sort(&mut self) {
        let mut waiting: Vec<Option<Node>> = self.nodes.drain(..).map(Some).collect();
        let made: Vec<&Node> = waiting.iter().flatten().collect();
        let makers: BTreeMap<String, usize> = made
            .iter()
            .enumerate()
            .flat_map(|(at, node)| node.outputs.iter().map(move |output| (output.clone(), at)))
            .collect();
        let needs: Vec<Vec<usize>> = made
            .iter()
            .map(|node| {
                node.inputs
                    .iter()
                    .filter_map(|name| makers.get(name).copied())
                    .collect()
            })
            .collect();
        let mut done = BTreeSet::new();
        for start in 0..waiting.len() {
            // Depth first, without recursion: graphs are deep.
            let mut stack = vec![start];
            while let Some(&at) = stack.last() {
                if done.contains(&at) {
                    stack.pop();
                    continue;
                }
                let missing = needs[at]
                    .iter()
                    .find(|&&need| !done.contains(&need) && need != at);
                match missing {
                    Some(&need) if !stack.contains(&need) => stack.push(need),
                    _ => {
                        done.insert(at);
                        self.nodes.extend(waiting[at].take());
                        stack.pop();
                    }
                }
            }
        }
    }

    /// Drops the constants that nothing reads.
    pub fn drop_unused_constants(&mut self) {
        let read: BTreeSet<&str> = self
            .nodes
            .iter()
            .flat_map(|node| node.inputs.iter().map(String::as_str))
            .chain(self.outputs.iter().map(|output| output.name.as_str()))
            .collect();
        let unused: Vec<String> = self
            .initializers
            .keys()
            .filter(|name| !read.contains(name.as_str()))
            .cloned()
            .collect();
        for name in unused {
            self.initializers.shift_remove(&name);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn nodes(graph: &OnnxGraph) -> Vec<&str> {
        graph.nodes.iter().map(Node::output).collect()
    }

    #[test]
    fn operators_come_after_what_they_read() {
        let mut graph = OnnxGraph {
            nodes: vec![
                Node::new("Add", ["c", "a"], ["d"]),
                Node::new("Relu", ["x"], ["a"]),
                Node::new("Relu", ["a"], ["c"]),
            ],
            ..OnnxGraph::default()
        };
        graph.sort();
        assert_eq!(nodes(&graph), ["a", "c", "d"]);
        graph.bypass("c", "a");
        assert_eq!(graph.nodes[1].inputs, ["a", "a"]);
        assert_eq!(graph.readers("a"), [1]);
    }

    #[test]
    fn equal_constants_are_one() {
        let mut graph = OnnxGraph::default();
        assert_eq!(graph.constant("s", Constant::scalar(1.0)), "s");
        assert_eq!(graph.constant("s", Constant::scalar(1.0)), "s");
        assert_eq!(graph.constant("s", Constant::scalar(2.0)), "s_2");
        graph.drop_unused_constants();
        assert!(graph.initializers.is_empty());
    }
}
