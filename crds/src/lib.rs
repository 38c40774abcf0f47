//! The KalamDB custom resource: types, defaults and validation.
