"""How well will a pre-trained backbone transfer to a task?"""
