//! A classifier of sequences with two LSTM layers.
//!
//! S. Hochreiter and J. Schmidhuber, *Long Short-Term Memory*, Neural Computation 9(8), 1997; F. Gers,
//! J. Schmidhuber and F. Cummins, *Learning to Forget: Continual Prediction with LSTM*, 2000.
//!
//! ```text
//! embedding   table of 20,000 words     [n, s] -> [n, s, 128]
//! lstm        two layers                       -> [n, s, 256]
//! fc          linear of the last token         -> [n, 2]
//! ```
//!
//! 3,482,114 parameters. PyTorch's `nn.LSTM` has the four gates of a layer in one matrix and Burn one
//! of its own for each, which no renaming turns into the other: [`LstmClassifier::load_layer`] takes
//! PyTorch's tensors. Names within a layer are Burn's, all others are those of a PyTorch module with
//! the same fields.

use burn::config::Config;
use burn::module::{Module, Param};
use burn::nn::{Embedding, EmbeddingConfig, GateController, Linear, Lstm, LstmConfig};
use burn::tensor::{Device, Int, Tensor};
use burn_compress_core::Wrapper;

use crate::Model;
use crate::layers::linear;
use crate::model::tokens;

/// Configuration of an [`LstmClassifier`].
#[derive(Config, Debug, PartialEq)]
pub struct LstmClassifierConfig {
    /// Number of words.
    #[config(default = 20000)]
    pub vocabulary: usize,
    /// Features of a word.
    #[config(default = 128)]
    pub features: usize,
    /// Features of the hidden states.
    #[config(default = 256)]
    pub hidden: usize,
    /// Layers.
    #[config(default = 2)]
    pub depth: usize,
    /// Number of classes.
    #[config(default = 2)]
    pub classes: usize,
}

impl LstmClassifierConfig {
    /// A network with random weights.
    pub fn init(&self, device: &Device) -> LstmClassifier {
        let layer = |layer| {
            let inputs = if layer == 0 {
                self.features
            } else {
                self.hidden
            };
            let lstm = LstmConfig::new(inputs, self.hidden, true);
            lstm.init(device).into()
        };
        let embedding = EmbeddingConfig::new(self.vocabulary, self.features);
        LstmClassifier {
            embedding: embedding.init(device).into(),
            lstm: (0..self.depth).map(layer).collect(),
            fc: linear(self.hidden, self.classes, device),
        }
    }
}

/// A classifier of sequences.
#[derive(Module, Debug)]
pub struct LstmClassifier {
    /// Table of words.
    pub embedding: Wrapper<Embedding>,
    /// Layers.
    pub lstm: Vec<Wrapper<Lstm>>,
    /// Classifier.
    pub fc: Wrapper<Linear>,
}

/// The tensors of a layer of PyTorch's `nn.LSTM`, rows in the order of input, forget, cell and output
/// gate.
#[derive(Clone, Debug)]
pub struct TorchLstm {
    /// `weight_ih_l0`, `[4 hidden, inputs]`.
    pub weight_ih: Tensor<2>,
    /// `weight_hh_l0`, `[4 hidden, hidden]`.
    pub weight_hh: Tensor<2>,
    /// `bias_ih_l0`, `[4 hidden]`.
    pub bias_ih: Tensor<1>,
    /// `bias_hh_l0`, `[4 hidden]`.
    pub bias_hh: Tensor<1>,
}

impl LstmClassifier {
    /// Logits of a batch of sequences.
    ///
    /// # Shapes
    ///
    /// - tokens: `[batch, tokens]`
    /// - logits: `[batch, classes]`
    pub fn forward(&self, tokens: Tensor<2, Int>) -> Tensor<2> {
        let x = self.embedding.forward(tokens);
        let x = self.lstm.iter().fold(x, |x, layer| layer.forward(x).0);
        let last = x.dims()[1] - 1;
        self.fc.forward(x.narrow(1, last, 1).squeeze_dim(1))
    }

    /// Takes the tensors of a layer over from PyTorch.
    ///
    /// # Panics
    ///
    /// If there is no such layer, or a tensor has another shape.
    pub fn load_layer(&mut self, layer: usize, torch: &TorchLstm) {
        let lstm: &mut Lstm = &mut self.lstm[layer];
        let gates = [
            Some(&mut lstm.input_gate),
            lstm.forget_gate.as_mut(),
            Some(&mut lstm.cell_gate),
            Some(&mut lstm.output_gate),
        ];
        for (index, gate) in gates.into_iter().enumerate() {
            if let Some(gate) = gate {
                torch.load(index, gate);
            }
        }
    }
}

impl TorchLstm {
    /// Takes the rows of gate number `index` over.
    fn load(&self, index: usize, gate: &mut GateController) {
        let hidden = self.weight_hh.dims()[1];
        let transforms = [
            (&self.weight_ih, &self.bias_ih, &mut gate.input_transform),
            (&self.weight_hh, &self.bias_hh, &mut gate.hidden_transform),
        ];
        for (weight, bias, linear) in transforms {
            let weight = weight.clone().narrow(0, index * hidden, hidden).transpose();
            assert_eq!(weight.dims(), linear.weight.dims(), "another shape");
            linear.weight = Param::from_tensor(weight);
            let bias = bias.clone().narrow(0, index * hidden, hidden);
            linear.bias = Some(Param::from_tensor(bias));
        }
    }
}

impl Model for LstmClassifier {
    type Input = Tensor<2, Int>;
    type Output = Tensor<2>;

    fn run(&self, input: Tensor<2, Int>) -> Tensor<2> {
        self.forward(input)
    }

    fn random_input(&self, batch: usize, size: usize, device: &Device) -> Tensor<2, Int> {
        let [vocabulary, _] = self.embedding.weight.dims();
        tokens(batch, size, vocabulary, device)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_layer_of_torch_computes_its_gates() {
        let device = Device::flex();
        let config = LstmClassifierConfig::new().with_vocabulary(1);
        let config = config.with_features(1).with_hidden(1).with_depth(1);
        let mut model = config.init(&device);
        let column = |values: [f32; 4]| Tensor::<1>::from_floats(values, &device);
        // Rows are input, forget, cell and output gate; of an input of 1 with no state.
        model.load_layer(
            0,
            &TorchLstm {
                weight_ih: column([0.0, 5.0, 1.0, 2.0]).reshape([4, 1]),
                weight_hh: column([9.0, 9.0, 9.0, 9.0]).reshape([4, 1]),
                bias_ih: column([0.0, 0.0, 0.5, 0.0]),
                bias_hh: column([0.0, 0.0, 0.0, 1.0]),
            },
        );
        let x = Tensor::<3>::ones([1, 1, 1], &device);
        let (hidden, _) = model.lstm[0].forward(x);
        let sigmoid = |x: f32| 1.0 / (1.0 + (-x).exp());
        // cell = sigmoid(0) tanh(1.5), hidden = sigmoid(3) tanh(cell)
        let expected = sigmoid(3.0) * (sigmoid(0.0) * 1.5f32.tanh()).tanh();
        let hidden = hidden.into_scalar::<f32>();
        assert!(
            (hidden - expected).abs() < 1e-6,
            "{hidden} is not {expected}"
        );
    }
}
