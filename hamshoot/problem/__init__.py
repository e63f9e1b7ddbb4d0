"""What is asked: data, activation, L̃, λ and width, validated once."""
