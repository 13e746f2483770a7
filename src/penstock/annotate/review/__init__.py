"""What people say of annotations: frames that are worth a look go out, corrections come back."""
