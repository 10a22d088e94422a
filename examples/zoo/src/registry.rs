//! The list of all networks, for programs that do the same with each.

use burn::tensor::Device;

use crate::{
    BertConfig, ConvNeXtConfig, DenseNetConfig, EfficientNetConfig, LlamaConfig,
    LstmClassifierConfig, MobileNetV2Config, MobileNetV3Config, Model, ResNetConfig,
    ShuffleNetV2Config, SwinTransformerConfig, UNetConfig, VggConfig, VisionTransformerConfig,
    YoloXConfig, shufflenet_v2,
};

/// Which version of a network.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scale {
    /// That of the reference.
    Full,
    /// A narrow and shallow one for tests.
    Tiny,
}

/// What is done with a network, whatever its type.
///
/// ```
/// use burn::tensor::Device;
/// use burn_compress_zoo::{Model, Scale, Task, Zoo, parameters};
///
/// struct Count;
///
/// impl Task for Count {
///     type Output = usize;
///
///     fn run<M: Model>(self, model: M) -> usize {
///         parameters(&model)
///     }
/// }
///
/// let zoo = Zoo::named("resnet18").unwrap();
/// assert_eq!(zoo.with(Scale::Full, &Device::flex(), Count), zoo.parameters());
/// ```
pub trait Task {
    /// What comes out.
    type Output;

    /// Does it.
    fn run<M: Model>(self, model: M) -> Self::Output;
}

/// Builds [`Zoo`] from a table: what it is, name, parameters at full scale, input sizes at full and
/// tiny scale, the layers that make the output, and how a network of each scale is made.
macro_rules! zoo {
    ($(
        $(#[$doc:meta])*
        $variant:ident($name:literal, $parameters:literal, [$large:literal, $small:literal],
                 [$($output:literal),*]):
            $full:expr, $tiny:expr => $init:ident;
    )+) => {
        /// The networks.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        #[non_exhaustive]
        pub enum Zoo {
            $($(#[$doc])* $variant,)+
        }

        impl Zoo {
            /// All networks.
            pub const ALL: &[Self] = &[$(Self::$variant),+];

            /// The name on a command line and in a table.
            pub fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $name,)+
                }
            }

            /// Parameters of the reference, without running statistics.
            pub fn parameters(self) -> usize {
                match self {
                    $(Self::$variant => $parameters,)+
                }
            }

            /// Pixels a side, or tokens, of the inputs that the network is used with.
            pub fn input_size(self, scale: Scale) -> usize {
                match (self, scale) {
                    $((Self::$variant, Scale::Full) => $large,
                      (Self::$variant, Scale::Tiny) => $small,)+
                }
            }

            /// Paths of the layers that make the output, whose channels cannot be removed.
            pub fn outputs(self) -> &'static [&'static str] {
                match self {
                    $(Self::$variant => &[$($output),*],)+
                }
            }

            /// Makes a network with random weights and does `task` with it.
            ///
            /// A weight is drawn when it is first read, so counting needs no memory.
            pub fn with<T: Task>(self, scale: Scale, device: &Device, task: T) -> T::Output {
                match self {
                    $(Self::$variant => task.run(match scale {
                        Scale::Full => $full.$init(device),
                        Scale::Tiny => $tiny.$init(device),
                    }),)+
                }
            }
        }
    };
}

impl Zoo {
    /// Paths of layers at full scale whose channels no cut removes, beside those of the outputs.
    pub fn fixed(self) -> &'static [&'static str] {
        match self {
            Self::ShuffleNetV2 => &shufflenet_v2::FIXED,
            _ => &[],
        }
    }

    /// The network of this name.
    pub fn named(name: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|zoo| zoo.name() == name)
    }
}

zoo! {
    /// ResNet-18, see [`resnet`](crate::resnet).
    ResNet18("resnet18", 11_689_512, [224, 32], ["fc"]):
        ResNetConfig::resnet18(),
        ResNetConfig::new([1, 2, 1, 1], false).with_width(8).with_classes(10) => init;
    /// ResNet-50, see [`resnet`](crate::resnet).
    ResNet50("resnet50", 25_557_032, [224, 32], ["fc"]):
        ResNetConfig::resnet50(),
        ResNetConfig::new([2, 1, 1, 1], true).with_width(8).with_classes(10) => init;
    /// ResNet-50 with group norms, see [`resnet`](crate::resnet).
    ResNet50GroupNorm("resnet50_gn", 25_557_032, [224, 32], ["fc"]):
        ResNetConfig::resnet50(),
        ResNetConfig::new([2, 1, 1, 1], true).with_width(8).with_groups(4).with_classes(10)
            => init_with_group_norm;
    /// VGG16 with batch norms, see [`vgg`](crate::vgg).
    Vgg16("vgg16_bn", 138_365_992, [224, 32], ["classifier.2"]):
        VggConfig::vgg16(),
        VggConfig::new([2, 1, 1, 1, 1]).with_width(4).with_hidden(16).with_classes(10) => init;
    /// MobileNetV2, see [`mobilenet_v2`](crate::mobilenet_v2).
    MobileNetV2("mobilenet_v2", 3_504_872, [224, 32], ["classifier"]):
        MobileNetV2Config::new(),
        MobileNetV2Config::new().with_width(0.25).with_depth(2).with_classes(10) => init;
    /// MobileNetV3-Small, see [`mobilenet_v3`](crate::mobilenet_v3).
    MobileNetV3("mobilenet_v3_small", 2_542_856, [224, 32], ["classifier.1"]):
        MobileNetV3Config::small(),
        MobileNetV3Config::small().with_width(0.5).with_depth(5).with_hidden(16).with_classes(10)
            => init;
    /// EfficientNet-B0, see [`efficientnet`](crate::efficientnet).
    EfficientNet("efficientnet_b0", 5_288_548, [224, 32], ["classifier"]):
        EfficientNetConfig::b0(),
        EfficientNetConfig::b0().with_width(0.25).with_depth(0.5).with_classes(10) => init;
    /// DenseNet-121, see [`densenet`](crate::densenet).
    DenseNet121("densenet121", 7_978_856, [224, 32], ["classifier"]):
        DenseNetConfig::densenet121(),
        DenseNetConfig::new([2, 1, 1, 2]).with_growth(4).with_classes(10) => init;
    /// ShuffleNetV2, see [`shufflenet_v2`](crate::shufflenet_v2).
    ShuffleNetV2("shufflenet_v2", 2_278_604, [224, 32], ["fc"]):
        ShuffleNetV2Config::x1_0(),
        ShuffleNetV2Config::new([2, 2, 1], [4, 8, 16, 16, 24]).with_classes(10) => init;
    /// ConvNeXt-Tiny, see [`convnext`](crate::convnext).
    ConvNeXt("convnext_tiny", 28_589_128, [224, 32], ["classifier.1"]):
        ConvNeXtConfig::tiny(),
        ConvNeXtConfig::new(vec![1, 2]).with_width(8).with_classes(10) => init;
    /// ViT-B/16, see [`vit`](crate::vit).
    VisionTransformer("vit_b_16", 86_567_656, [224, 16], ["heads"]):
        VisionTransformerConfig::b16(),
        VisionTransformerConfig::b16().with_image(16).with_patch(8).with_depth(2).with_heads(2)
            .with_head_size(4).with_hidden(16).with_classes(10) => init;
    /// Swin-T, see [`swin`](crate::swin).
    SwinTransformer("swin_t", 28_288_354, [224, 32], ["head"]):
        SwinTransformerConfig::tiny(),
        SwinTransformerConfig::new(vec![2, 2]).with_heads(2).with_head_size(4).with_window(4)
            .with_classes(10) => init;
    /// YOLOX-nano, see [`yolox`](crate::yolox).
    YoloX("yolox_nano", 912_159, [416, 64], ["head.cls_preds.0", "head.cls_preds.1", "head.cls_preds.2", "head.reg_preds.0", "head.reg_preds.1", "head.reg_preds.2", "head.obj_preds.0", "head.obj_preds.1", "head.obj_preds.2"]):
        YoloXConfig::nano(), YoloXConfig::nano().with_width(4).with_classes(5) => init;
    /// U-Net, see [`unet`](crate::unet).
    UNet("unet", 7_763_041, [256, 16], ["conv"]):
        UNetConfig::new(), UNetConfig::new().with_width(4).with_depth(2) => init;
    /// BERT-base, see [`bert`](crate::bert).
    Bert("bert_base", 109_483_778, [128, 6], ["classifier"]):
        BertConfig::base(),
        BertConfig::base().with_vocabulary(32).with_positions(8).with_depth(2).with_heads(2)
            .with_head_size(4).with_hidden(16).with_classes(10) => init;
    /// SmolLM2-135M, see [`llama`](crate::llama).
    Llama("smollm2_135m", 134_515_008, [128, 6], []):
        LlamaConfig::smollm2_135m(),
        LlamaConfig::new(32, 16, 2, 4, 2, 24).with_head_size(4) => init;
    /// A classifier with two LSTM layers, see [`lstm`](crate::lstm).
    Lstm("lstm", 3_482_114, [128, 6], ["fc"]):
        LstmClassifierConfig::new(),
        LstmClassifierConfig::new().with_vocabulary(32).with_features(4).with_hidden(6)
            .with_classes(10) => init;
}
