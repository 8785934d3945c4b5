//! Base images from the local store alone.

use slipway_types::{ApiError, ErrorCode, Reference};

use super::runner::{BaseImages, BaseProgress, CancelFlag, ResolvedBase};
use crate::store::Store;

/// Finds base images in a store and nowhere else, for machines that reach no registry.
pub struct LocalImages(pub Store);

impl BaseImages for LocalImages {
    fn resolve(
        &self,
        reference: &Reference,
        _platform: &str,
        _pull: bool,
        _progress: &BaseProgress<'_>,
        _cancel: &CancelFlag,
    ) -> Result<ResolvedBase, ApiError> {
        match self.0.resolve(&reference.to_string()) {
            Ok(Some(id)) => Ok(ResolvedBase { id, pulled: false }),
            Ok(None) => Err(ApiError::new(
                ErrorCode::NotFound,
                format!("no image here is named `{}`", reference.familiar()),
            )
            .with_hint(
                "`slipway images` lists what is here; `slipway base debian -t NAME` makes a base image",
            )),
            Err(error) => Err(ApiError::from_error(ErrorCode::Internal, &error)),
        }
    }
}
