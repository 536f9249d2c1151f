"""A finished student for other programs: safetensors, GGUF for llama.cpp and Ollama, and the proof of what they are."""
