"""Where a store is built and put: working folder, local disk, object store; may import `schemas` and `prep.files`."""
