//! The two constructors that all quantizers have.

/// `new` and `from_compressor` of a quantizer, on top of its `claim`.
macro_rules! constructors {
    ($quantizer:ident, $config:ty) => {
        $crate::constructors::constructors!(
            @impl [] $quantizer, [<M: burn::module::Module + 'static, I: 'static>] $config
        );
    };
    ($quantizer:ident<M, I>, $config:ty) => {
        $crate::constructors::constructors!(
            @impl [<M: burn::module::Module + 'static, I: 'static>] $quantizer<M, I>, [] $config
        );
    };
    (@impl [$($on_impl:tt)*] $quantizer:ty, [$($on_method:tt)*] $config:ty) => {
        impl $($on_impl)* $quantizer {
            /// Quantizes `model`.
            ///
            /// # Errors
            ///
            /// A configuration that does not fit the model or the quantizer, layers that cannot be
            /// fused, and a part of the evaluator that is missing.
            #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
            pub fn new $($on_method)* (
                model: M,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::QuantizationSettings>>,
                evaluator: burn_compress_core::Evaluator<M, I>,
                quantizer: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error> {
                let chain = burn_compress_core::Compressor::from_model(model, evaluator);
                Self::from_compressor(chain, config, quantizer)
            }

            /// Quantizes the model of `compressor` as well, in the same run.
            ///
            /// # Errors
            ///
            /// Those of `new`, and a target that another quantizer of the chain has.
            pub fn from_compressor $($on_method)* (
                mut compressor: burn_compress_core::Compressor<M, I>,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::QuantizationSettings>>,
                quantizer: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, burn_compress_core::Error> {
                let quantizer = Self::claim(&mut compressor, &config.into(), quantizer)?;
                compressor.push(quantizer);
                Ok(compressor)
            }
        }
    };
}

pub(crate) use constructors;
