"""Several looks at one picture, merged: tiles, scales and flips, a dense CRF."""
