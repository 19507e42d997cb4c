module example.com/sentinel

go 1.24
