from .page import build as build
