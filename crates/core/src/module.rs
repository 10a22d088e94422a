//! Methods that modules of this crate have in common.

/// Methods of a [`Module`](burn::module::Module) without tensors that move between devices.
macro_rules! keeps_device {
    () => {
        fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
            devices
        }

        fn fork(self, _device: &burn::tensor::Device) -> Self {
            self
        }

        fn to_device(self, _device: &burn::tensor::Device) -> Self {
            self
        }

        fn train(self) -> Self {
            self
        }

        fn materialize(self) -> Self {
            self
        }
    };
}

/// Methods of a [`Module`](burn::module::Module) around the module in the field `inner`.
macro_rules! moves_with {
    ($inner:ident) => {
        fn collect_devices(&self, devices: burn::module::Devices) -> burn::module::Devices {
            self.$inner.collect_devices(devices)
        }

        fn fork(mut self, device: &burn::tensor::Device) -> Self {
            self.$inner = self.$inner.fork(device);
            self
        }

        fn to_device(mut self, device: &burn::tensor::Device) -> Self {
            self.$inner = self.$inner.to_device(device);
            self
        }

        fn materialize(mut self) -> Self {
            self.$inner = self.$inner.materialize();
            self
        }
    };
}

pub(crate) use {keeps_device, moves_with};
