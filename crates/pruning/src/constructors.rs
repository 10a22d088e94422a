//! The two constructors that every pruner has.

/// Gives a pruner type `new` and `from_compressor`: `$pruner` makes of a configuration the
/// importance with its source.
macro_rules! constructors {
    ($name:ident, $config:ty, $pruner:expr) => {
        impl $name {
            /// Prunes `model`.
            ///
            /// # Errors
            ///
            /// A configuration that does not fit the model, a goal that can remove nothing, values
            /// that are not finite, a missing part of the evaluator, or channels that cannot be
            /// removed.
            #[allow(clippy::new_ret_no_self)] // A chain has one type whatever is fused into it.
            pub fn new<M: burn::module::Module + 'static, I: 'static>(
                model: M,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::PruningSettings>>,
                evaluator: burn_compress_core::Evaluator<M, I>,
                pruner: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, $crate::PruningError> {
                let chain = burn_compress_core::Compressor::from_model(model, evaluator);
                Self::from_compressor(chain, config, pruner)
            }

            /// Prunes the model of `compressor` as well, in the same run.
            ///
            /// # Errors
            ///
            /// Those of `new`, and a target that another pruner of the chain has.
            pub fn from_compressor<M: burn::module::Module + 'static, I: 'static>(
                compressor: burn_compress_core::Compressor<M, I>,
                config: impl Into<burn_compress_core::config::ConfigList<$crate::PruningSettings>>,
                pruner: $config,
            ) -> Result<burn_compress_core::Compressor<M, I>, $crate::PruningError> {
                let made: fn(
                    &$config,
                )
                    -> Result<$crate::pruner::Pruner<_, _>, $crate::PruningError> = $pruner;
                let made = made(&pruner)?.with_name(stringify!($name));
                made.add_to(
                    compressor,
                    &config.into(),
                    burn_compress_core::Configuration::of(&pruner),
                )
            }
        }
    };
}
pub(crate) use constructors;
